"""Peak memory of one call of the pruned denoiser for one prompt, its weights included.

Beside the weights: on a GPU what the allocator held beyond what was there; on a CPU the tensors alive at once, without
the kernels' own workspace, which nothing counts.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="denoiser memory, peak",
    unit="MiB",
    higher_is_better=False,
    timed=True,
)


def compute(model: Model) -> Value:
    return model.profile.work.memory["pruned"] / 2**20, None
