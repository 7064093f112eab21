"""One call of the middle transformer block for a full batch of `batch_size` prompts, guidance included.

Median and quartiles of the whole call.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="block, full batch",
    unit="ms",
    higher_is_better=False,
    timed=True,
    clocked=True,
)


def compute(model: Model) -> Value:
    low, median, high = model.latency["batch"]["block_ms"]
    return median, (low, high)
