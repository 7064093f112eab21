"""Theoretical: FLOPs of one call of the pruned denoiser for one prompt if products with zero weights cost nothing.

No kernel here does that. Where heads and neurons are removed it is what is measured.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="FLOPs of a call, theoretical",
    unit="TFLOP",
    higher_is_better=None,
)


def compute(model: Model) -> Value:
    return model.profile.work.flops["ideal"] / 1e12, None
