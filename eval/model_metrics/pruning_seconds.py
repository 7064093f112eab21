"""Wall-clock time of prune(): encoding, calibration and solving, as if for this cell alone.

A calibration that was made once for several cells counts in full for each; shared_seconds says how much of it is that.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="pruning time",
    unit="s",
    higher_is_better=False,
    timed=True,
    table="cost",
    order=6,
)


def compute(model: Model) -> Value:
    seconds = model.checkpoint.seconds
    return seconds["total"] + seconds.get("shared", 0.0), None
