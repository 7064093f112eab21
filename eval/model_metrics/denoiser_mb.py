"""The pruned denoiser's parameters in memory, in the pipeline's dtype; dense kernels need the zeros too."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="denoiser",
    unit="MB",
    higher_is_better=None,
)


def compute(model: Model) -> Value:
    return model.profile.bytes["memory"] / 1e6, None
