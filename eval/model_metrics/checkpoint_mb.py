"""The pruned weights' file: masks or codes and kept values, or small weights. Layers left dense are not in it."""

from eval.model_metrics import Model, Value

TITLE = "file"
UNIT = "MB"
HIGHER_IS_BETTER = None
TIMED = False
CLOCKED = False


def compute(model: Model) -> Value:
    return model.checkpoint["weights_bytes"] / 1e6, None
