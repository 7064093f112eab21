"""Peak memory of one call of the pruned denoiser for one prompt, its weights included.

Beside the weights: on a GPU what the allocator held beyond what was there; on a CPU the tensors alive at once, without
the kernels' own workspace, which nothing counts.
"""

from eval.model_metrics import Model, Value

TITLE = "denoiser memory, peak"
UNIT = "MiB"
HIGHER_IS_BETTER = False
TIMED = True
CLOCKED = False


def compute(model: Model) -> Value:
    return model.profile["work"]["memory"]["pruned"] / 2**20, None
