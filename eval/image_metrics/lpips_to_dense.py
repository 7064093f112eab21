"""LPIPS (Zhang et al. 2018) to the dense model's picture of the same prompt and seed: torchmetrics' linear heads on
ImageNet weights of torchvision, measured where the model file names them (`evaluation.lpips`)."""

from typing import Any

from eval.image_metrics import Pictures, Value
from eval.networks.lpips import Lpips

TITLE = "LPIPS to dense"
UNIT = "distance"
HIGHER_IS_BETTER = False
PER = "prompt"
LIBRARY = "torchmetrics"
READS = ("dense",)
NEEDS = "lpips"


def compute(pictures: Pictures) -> Value:
    """Pictures are compared at their own size."""
    found = Lpips(pictures.judges[NEEDS], pictures.device).distances(pictures.files, pictures.dense_files)
    return float(found.mean()), found.tolist()


def made_by(pictures: Pictures) -> dict[str, Any]:
    return Lpips(pictures.judges[NEEDS]).about
