"""Work of one denoiser call as the OBS-Diff paper's tables count it, see obsdiff.planning.counting.paper_flops.

One unguided call on the pipeline's own size with 77 text tokens, without attention's own products; multiply-adds of a
transformer, FLOPs of a UNet. Counted without weights, and so the same on any machine.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="work of a call, as the paper counts",
    unit="TFLOP",
    higher_is_better=None,
)


def compute(model: Model) -> Value | None:
    counted = model.profile.paper_flops
    return None if counted is None else (counted / 1e12, None)
