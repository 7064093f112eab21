"""The part of the pruning time that is a calibration made once for several cells; 0 of a cell that shares none.

It is the time of a Hessian's calibration for every method that takes it, though Wanda alone would sum up less.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="of it shared calibration",
    unit="s",
    higher_is_better=None,
    timed=True,
    table="cost",
    order=7,
)


def compute(model: Model) -> Value:
    return model.checkpoint.seconds.get("shared", 0.0), None
