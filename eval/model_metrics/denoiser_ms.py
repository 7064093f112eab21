"""One call of the denoiser for one prompt, guidance included: median and quartiles, wall-clock."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="denoiser step, one prompt",
    unit="ms",
    higher_is_better=False,
    timed=True,
    clocked=True,
)


def compute(model: Model) -> Value:
    low, median, high = model.latency["denoiser_ms"]
    return median, (low, high)
