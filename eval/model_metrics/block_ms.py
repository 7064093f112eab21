"""One call of the denoiser's middle transformer block for one prompt, guidance included: median and quartiles."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="block, one prompt",
    unit="ms",
    higher_is_better=False,
    timed=True,
    clocked=True,
)


def compute(model: Model) -> Value:
    low, median, high = model.latency["block_ms"]
    return median, (low, high)
