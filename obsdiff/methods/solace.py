"""Sequential Output-sensitive LAyer Compensation, Exact: this project's own method (docs/method.md).

Layers are pruned one after the other on what the pruned layers before them give. A layer's error is weighed by what it
does to the denoiser's guided output, masks come from ADMM, the remaining weights are re-solved exactly, and layers get
sparsities at which every next weight costs the same. Every ingredient is a field of PruneSpec, for other methods too.
"""

from obsdiff.methods import Traits

TRAITS = Traits(
    kinds=("mask", "structured"),
    statistic="hessian",
    solver="admm",
    group="layer",
    defaults={
        "packages": "sequential",
        "calibration_steps": 2,
        "sensitivity": "both",
        "allocation": "marginal_cost",
        "refit": True,
    },
    # heads and neurons are too large for errors to first order (docs/results/methods.md)
    structured={"calibration_steps": 4, "sensitivity": "none", "refit": False},
)
