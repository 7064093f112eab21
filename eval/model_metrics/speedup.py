"""How many times faster the pruned denoiser is for a full batch of the model file's `batch_size` prompts.

The median over rounds of the dense time over the pruned one, in turns in one process, and the ratios' quartiles; where
1 lies between them no speed-up was shown. A full batch is bound by arithmetic: what removed heads and neurons save
shows.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="speed-up, full batch",
    unit="×",
    higher_is_better=True,
    timed=True,
    clocked=True,
    table="cost",
    order=3,
)


def compute(model: Model) -> Value:
    batch = model.latency["batch"]
    low, high = batch["speedup_quartiles"]
    return batch["speedup"], (low, high)
