"""One call of the middle transformer block for a full batch of `batch_size` prompts, guidance included.

Median and quartiles of the whole call.
"""

from eval.model_metrics import Model, Value

TITLE = "block, full batch"
UNIT = "ms"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = True


def compute(model: Model) -> Value:
    low, median, high = model.latency["batch"]["block_ms"]
    return median, (low, high)
