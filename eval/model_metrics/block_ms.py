"""One call of the denoiser's middle transformer block for one prompt, guidance included: median and quartiles."""

from eval.model_metrics import Model, Value

TITLE = "block, one prompt"
UNIT = "ms"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = True


def compute(model: Model) -> Value:
    low, median, high = model.latency["block_ms"]
    return median, (low, high)
