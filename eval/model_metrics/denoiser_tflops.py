"""FLOPs of one call of the pruned denoiser for one prompt, guidance included; zeros are multiplied like any number."""

from eval.model_metrics import Model, Value

TITLE = "FLOPs of a call, measured"
UNIT = "TFLOP"
HIGHER_IS_BETTER = None
TIMED = False
CLOCKED = False


def compute(model: Model) -> Value:
    return model.profile["work"]["flops"]["pruned"] / 1e12, None
