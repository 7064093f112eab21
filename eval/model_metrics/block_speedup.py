"""How many times faster the middle block is for one prompt: median and quartiles over rounds, as of `speedup`."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="block speed-up, one prompt",
    unit="×",
    higher_is_better=True,
    timed=True,
    clocked=True,
)


def compute(model: Model) -> Value:
    low, high = model.latency["block_speedup_quartiles"]
    return model.latency["block_speedup"], (low, high)
