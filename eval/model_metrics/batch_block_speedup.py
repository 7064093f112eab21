"""How many times faster the middle block is for a full batch: median and quartiles over rounds, as of `speedup`."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="block speed-up, full batch",
    unit="×",
    higher_is_better=True,
    timed=True,
    clocked=True,
)


def compute(model: Model) -> Value:
    batch = model.latency["batch"]
    low, high = batch["block_speedup_quartiles"]
    return batch["block_speedup"], (low, high)
