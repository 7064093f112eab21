"""LPIPS (Zhang et al. 2018) to the dense model's image of the same prompt and seed: torchmetrics' linear heads on
ImageNet weights of torchvision, measured where the model file names them (`evaluation.lpips`)."""

from typing import Any

from eval.image_metrics import Images, Traits, Value
from eval.networks.lpips import Lpips

TRAITS = Traits(
    title="LPIPS to dense",
    unit="distance",
    higher_is_better=False,
    per="prompt",
    library="torchmetrics",
    reads=("dense",),
    needs="lpips",
    order=4,
)


def compute(images: Images) -> Value:
    """Images are compared at their own size."""
    found = Lpips(images.judges["lpips"], images.device).distances(images.files, images.dense_files)
    return float(found.mean()), found.tolist()


def made_by(images: Images) -> dict[str, Any]:
    return Lpips(images.judges["lpips"]).about
