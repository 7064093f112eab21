"""The pruned denoiser's parameters in memory, in the pipeline's dtype; dense kernels need the zeros too."""

from eval.model_metrics import Model, Value

TITLE = "denoiser"
UNIT = "MB"
HIGHER_IS_BETTER = None
TIMED = False
CLOCKED = False


def compute(model: Model) -> Value:
    return model.profile["bytes"]["memory"] / 1e6, None
