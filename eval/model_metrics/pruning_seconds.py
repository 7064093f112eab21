"""Wall-clock time of prune(): encoding, calibration and solving."""

from eval.model_metrics import Model, Value

TITLE = "pruning time"
UNIT = "s"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = False


def compute(model: Model) -> Value:
    return model.checkpoint["seconds"]["total"], None
