"""One call of the denoiser for a full batch of `batch_size` prompts, guidance included, divided by their number."""

from eval.model_metrics import Model, Value

TITLE = "denoiser step, full batch"
UNIT = "ms a prompt"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = True


def compute(model: Model) -> Value:
    batch = model.latency["batch"]
    low, median, high = (time / batch["size"] for time in batch["denoiser_ms"])
    return median, (low, high)
