"""SSIM to the dense model's image of the same prompt and seed (Wang et al. 2004), by torchmetrics."""

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from eval.image_metrics import Images, Traits, Value

TRAITS = Traits(
    title="SSIM to dense",
    unit="index",
    higher_is_better=True,
    per="prompt",
    library="torchmetrics",
    reads=("dense",),
    order=3,
)


def compute(images: Images) -> Value:
    """Gaussian windows of 11 pixels, σ 1.5, averaged over the three channels and over images."""
    parts = []
    for own, dense in images.pairs():
        found = structural_similarity_index_measure(own, dense, reduction="none", data_range=255.0)
        assert isinstance(found, torch.Tensor)
        parts.append(found.cpu())
    index = torch.cat(parts)
    return float(index.mean()), index.tolist()
