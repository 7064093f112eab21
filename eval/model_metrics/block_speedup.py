"""How many times faster the middle block is for one prompt: median and quartiles over rounds, as of `speedup`."""

from eval.model_metrics import Model, Value

TITLE = "block speed-up, one prompt"
UNIT = "×"
HIGHER_IS_BETTER = True
TIMED = True
CLOCKED = True


def compute(model: Model) -> Value:
    low, high = model.latency["block_speedup_quartiles"]
    return model.latency["block_speedup"], (low, high)
