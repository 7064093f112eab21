"""FLOPs of one call of the pruned denoiser for one prompt, guidance included; zeros are multiplied like any number."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="FLOPs of a call, measured",
    unit="TFLOP",
    higher_is_better=None,
)


def compute(model: Model) -> Value:
    return model.profile.work.flops["pruned"] / 1e12, None
