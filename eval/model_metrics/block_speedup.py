"""The dense middle block's median time over the pruned one's, measured in turns in one process."""

from eval.model_metrics import Model, Value

TITLE = "block speed-up"
UNIT = "×"
HIGHER_IS_BETTER = True
TIMED = True


def compute(model: Model) -> Value:
    return model.profile["latency"]["block_speedup"], None
