"""The whole pipeline for one prompt, text encoding and decoding included: median and quartiles, wall-clock."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="pipeline, one prompt",
    unit="ms",
    higher_is_better=False,
    timed=True,
    clocked=True,
)


def compute(model: Model) -> Value:
    low, median, high = model.latency["pipeline_ms"]
    return median, (low, high)
