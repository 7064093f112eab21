"""FID against the real images of the prompts alone (eval/sweep/pairing.py)."""

from eval.image_metrics import Images, Traits, Value
from eval.networks.distances import frechet, rank_warning

TRAITS = Traits(
    title="FID, paired",
    unit="{network} features",
    higher_is_better=False,
    per="set",
    library="torchmetrics",
    reads=("fid_features", "paired"),
    order=13,
)


def compute(images: Images) -> Value:
    return frechet(images.fid_features, images.references["paired"], images.device)


def warning(images: Images) -> str | None:
    return rank_warning(images.fid_features, images.references["paired"])
