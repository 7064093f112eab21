"""How many times faster the pruned denoiser is for one prompt, guidance included.

Median and quartiles over rounds as of `speedup`. A small model's call for one prompt is mostly overhead, so this is the
lesser of the two.
"""

from eval.model_metrics import Model, Value

TITLE = "speed-up, one prompt"
UNIT = "×"
HIGHER_IS_BETTER = True
TIMED = True
CLOCKED = True


def compute(model: Model) -> Value:
    low, high = model.latency["speedup_quartiles"]
    return model.latency["speedup"], (low, high)
