"""One call of the denoiser for one prompt, guidance included: median and quartiles, wall-clock."""

from eval.model_metrics import Model, Value

TITLE = "denoiser step, one prompt"
UNIT = "ms"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = True


def compute(model: Model) -> Value:
    low, median, high = model.latency["denoiser_ms"]
    return median, (low, high)
