"""Nonzero parameters of the whole denoiser."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="nonzero parameters",
    unit="M",
    higher_is_better=None,
    table="cost",
    order=1,
)


def compute(model: Model) -> Value:
    return model.profile.denoiser["nonzero"] / 1e6, None
