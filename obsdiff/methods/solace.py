"""Sequential Output-sensitive LAyer Compensation, Exact: this project's own method (docs/method.md).

Layers are pruned one after the other on what the pruned layers before them give. A layer's error is weighed by what it
does to the denoiser's guided output; masks come from ADMM or the column sweep, whichever leaves the smaller error, and
the remaining weights are re-solved exactly. Every ingredient is a field of PruneSpec that other methods can use.
"""

from obsdiff.methods import Traits

TRAITS = Traits(
    kinds=("mask", "structured"),
    statistic="hessian",
    solver="best",
    group="layer",
    defaults={
        "packages": "sequential",
        "calibration_steps": 2,
        "sensitivity": "both",
        "allocation": "marginal_cost",
        "bias": True,
        "damping": 0.1,
        "refit": True,
    },
)
