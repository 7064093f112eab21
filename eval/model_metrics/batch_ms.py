"""One call of the denoiser for a full batch of `batch_size` prompts, guidance included, divided by their number."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="denoiser step, full batch",
    unit="ms per prompt",
    higher_is_better=False,
    timed=True,
    clocked=True,
)


def compute(model: Model) -> Value:
    batch = model.latency["batch"]
    low, median, high = (time / batch["size"] for time in batch["denoiser_ms"])
    return median, (low, high)
