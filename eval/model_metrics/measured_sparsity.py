"""Zero weights over all weights of the prunable layers, counted in the pruned model."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="measured sparsity",
    unit="fraction",
    higher_is_better=None,
)


def compute(model: Model) -> Value:
    prunable = model.profile.prunable
    return 1 - prunable["nonzero"] / prunable["total"], None
