"""LPIPS (Zhang et al. 2018) to the dense model's image of the same prompt and seed: torchmetrics' linear heads on
ImageNet weights of torchvision, measured where the model file names them (`evaluation.lpips`)."""

from typing import Any

from eval.image_metrics import Pictures, Traits, Value
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


def compute(pictures: Pictures) -> Value:
    """Images are compared at their own size."""
    found = Lpips(pictures.judges["lpips"], pictures.device).distances(pictures.files, pictures.dense_files)
    return float(found.mean()), found.tolist()


def made_by(pictures: Pictures) -> dict[str, Any]:
    return Lpips(pictures.judges["lpips"]).about
