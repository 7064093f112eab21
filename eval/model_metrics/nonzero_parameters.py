"""Nonzero parameters of the whole denoiser."""

from eval.model_metrics import Model, Value

TITLE = "nonzero parameters"
UNIT = "M"
HIGHER_IS_BETTER = None
TIMED = False
CLOCKED = False


def compute(model: Model) -> Value:
    return model.profile["denoiser"]["nonzero"] / 1e6, None
