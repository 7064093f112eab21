"""Peak memory of the pruning process: resident set on a CPU (libraries included), allocated on a GPU."""

from eval.model_metrics import Model, Value

TITLE = "pruning memory"
UNIT = "MiB"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = False


def compute(model: Model) -> Value:
    return model.checkpoint["peak_memory_bytes"] / 2**20, None
