"""Fréchet distance of the images' features to those of the real images (Heusel et al. 2017), by torchmetrics."""

import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from eval.image_metrics import Images, Traits, Value
from eval.networks.distances import frechet_replicates

TRAITS = Traits(
    title="FID",
    unit="{network} features",
    higher_is_better=False,
    per="set",
    library="torchmetrics",
    reads=("fid_features", "reference"),
    headline=3,
    order=1,
)


class Given(torch.nn.Module):
    """Features that are already computed, for torchmetrics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def compute(images: Images) -> Value:
    """With fewer images than dimensions the covariances are singular, and the value is finite all the same."""
    metric = FrechetInceptionDistance(feature=Given(images.fid_features.shape[1])).eval()
    metric.update(images.reference, real=True)
    metric.update(images.fid_features, real=False)
    replicates = frechet_replicates(images.fid_features, images.reference, images.device)
    return float(metric.compute()), replicates


def warning(images: Images) -> str | None:
    """A covariance of n features has rank n − 1 at most; below the dimensions FID falls with every image more."""
    (own, width), real = images.fid_features.shape, len(images.reference)
    if min(own, real) > width:
        return None
    return (
        f"covariance rank-deficient: {own} images and {real} real ones in {width} dimensions; compare this FID with "
        "those of as many images only, and read KID and CMMD beside it"
    )
