"""Maximum mean discrepancy of CLIP features to the real images' (Jayasumana et al. 2024, "Rethinking FID").

As in their code: a Gaussian kernel of bandwidth 10 on features of length one, all pairs (the V-statistic), × 1000.
It assumes no normal distribution. Their features are ViT-L/14's at 336 pixels; here they are the evaluator's.
"""

import torch
from torch import Tensor

from eval.image_metrics import Images, Traits, Value
from eval.networks.distances import squared_mmd

TRAITS = Traits(
    title="CMMD",
    unit="×1000",
    higher_is_better=False,
    per="set",
    library="obsdiff",
    reads=("features", "reference"),
    order=3,
)
BANDWIDTH = 10.0


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """exp(−‖a − b‖² / 2σ²), (a, d) and (b, d) → (a, b)."""
    return torch.exp(-torch.cdist(a, b).square() / (2 * BANDWIDTH**2))


def compute(images: Images) -> Value:
    value, replicates = squared_mmd(images.features, images.real_features, kernel, unbiased=False, device=images.device)
    return 1000 * value, [1000 * r for r in replicates]
