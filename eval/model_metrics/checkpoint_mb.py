"""The pruned weights' file: masks or codes and kept values, or small weights. Layers left dense are not in it."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="file",
    unit="MB",
    higher_is_better=None,
    table="cost",
    order=2,
)


def compute(model: Model) -> Value:
    return model.checkpoint.weights_bytes / 1e6, None
