"""Fréchet distance of the images' features to those of the real images (Heusel et al. 2017), by torchmetrics."""

from eval.image_metrics import Images, Traits, Value
from eval.networks.distances import frechet, rank_warning

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


def compute(images: Images) -> Value:
    return frechet(images.fid_features, images.reference, images.device)


def warning(images: Images) -> str | None:
    return rank_warning(images.fid_features, images.reference)
