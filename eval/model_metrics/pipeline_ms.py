"""The whole pipeline for one prompt, text encoding and decoding included: median and quartiles, wall-clock."""

from eval.model_metrics import Model, Value

TITLE = "pipeline, one prompt"
UNIT = "ms"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = True


def compute(model: Model) -> Value:
    low, median, high = model.latency["pipeline_ms"]
    return median, (low, high)
