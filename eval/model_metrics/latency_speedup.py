"""How many times faster the pruned denoiser is for one prompt, guidance included.

Median and quartiles over rounds as of `speedup`. A small model's call for one prompt is mostly overhead, so this is the
lesser of the two.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="speed-up, one prompt",
    unit="×",
    higher_is_better=True,
    timed=True,
    clocked=True,
    table="cost",
    order=4,
)


def compute(model: Model) -> Value:
    low, high = model.latency["speedup_quartiles"]
    return model.latency["speedup"], (low, high)
