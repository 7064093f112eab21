"""Fréchet distance of the evaluator's features to those of the real pictures (Heusel et al. 2017), by torchmetrics."""

import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from eval.image_metrics import Pictures, Value

TITLE = "FID"
UNIT = "evaluator features"
HIGHER_IS_BETTER = False


class Given(torch.nn.Module):
    """Features that are already computed, for torchmetrics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def compute(pictures: Pictures) -> Value:
    """On unit features scaled by √d, so that a dimension has variance 1 at most on average."""
    scale = pictures.features.shape[1] ** 0.5
    metric = FrechetInceptionDistance(feature=Given(pictures.features.shape[1])).eval()
    metric.update(pictures.reference * scale, real=True)
    metric.update(pictures.features * scale, real=False)
    return float(metric.compute()), None
