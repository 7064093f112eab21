"""Zero weights over all weights of the prunable layers, counted in the pruned model."""

from eval.model_metrics import Model, Value

TITLE = "measured sparsity"
UNIT = "fraction"
HIGHER_IS_BETTER = None
TIMED = False
CLOCKED = False


def compute(model: Model) -> Value:
    prunable = model.profile["prunable"]
    return 1 - prunable["nonzero"] / prunable["total"], None
