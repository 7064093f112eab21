"""The dense denoiser's bytes over the pruned one's on disk, which are the pruned layers' file and all other parameters.

Both in the pipeline's dtype.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="smaller on disk",
    unit="×",
    higher_is_better=None,
)


def compute(model: Model) -> Value:
    size = model.profile.bytes
    return size["dense"] / size["disk"], None
