"""FID against the real images cropped in the middle, then resized to the generated ones (eval/images/views.py)."""

from eval.image_metrics import Images, Traits, Value
from eval.networks.distances import frechet, rank_warning

TRAITS = Traits(
    title="FID, cropped",
    unit="{network} features",
    higher_is_better=False,
    per="set",
    library="torchmetrics",
    reads=("fid_features", "cropped"),
    order=11,
)


def compute(images: Images) -> Value:
    return frechet(images.fid_features, images.references["cropped"], images.device)


def warning(images: Images) -> str | None:
    return rank_warning(images.fid_features, images.references["cropped"])
