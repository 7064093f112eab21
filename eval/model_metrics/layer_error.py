"""‖(W − Ŵ)X‖² / ‖WX‖² on the dense model's inputs for benchmark prompts, averaged over the prunable layers.

Held-out and with all steps counted alike, so that every method is measured by the same rule.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="layer error",
    unit="relative",
    higher_is_better=False,
    table="similarity",
    order=5,
)


def compute(model: Model) -> Value:
    errors = [layer.error for layer in model.profile.layers]
    return sum(errors) / len(errors), None
