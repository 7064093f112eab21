"""Peak memory of the pruning process: resident set on a CPU (libraries included), allocated on a GPU."""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="pruning memory",
    unit="MiB",
    higher_is_better=False,
    timed=True,
    table="cost",
    order=8,
)


def compute(model: Model) -> Value:
    return model.checkpoint.peak_memory_bytes / 2**20, None
