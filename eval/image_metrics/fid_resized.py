"""FID against the real images resized to the generated ones, whatever their shape (eval/images/views.py)."""

from eval.image_metrics import Images, Traits, Value
from eval.networks.distances import frechet, rank_warning

TRAITS = Traits(
    title="FID, resized",
    unit="{network} features",
    higher_is_better=False,
    per="set",
    library="torchmetrics",
    reads=("fid_features", "resized"),
    order=12,
)


def compute(images: Images) -> Value:
    return frechet(images.fid_features, images.references["resized"], images.device)


def warning(images: Images) -> str | None:
    return rank_warning(images.fid_features, images.references["resized"])
