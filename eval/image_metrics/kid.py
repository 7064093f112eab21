"""Kernel distance of the evaluator's features to the real pictures' (Bińkowski et al. 2018), by torchmetrics."""

import warnings

import torch
from torchmetrics.image.kid import KernelInceptionDistance

from eval.image_metrics import Pictures, Value
from eval.image_metrics.fid import Given

TITLE = "KID"
UNIT = "×1000, evaluator features"
HIGHER_IS_BETTER = False
SUBSETS = 50


def compute(pictures: Pictures) -> Value:
    """1000 × the mean over 50 seeded subsets of half the pictures; on the features of FID."""
    n, width = pictures.features.shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
        metric = KernelInceptionDistance(feature=Given(width), subsets=SUBSETS, subset_size=max(2, n // 2)).eval()
    metric.update(pictures.reference * width**0.5, real=True)
    metric.update(pictures.features * width**0.5, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return 1000 * float(metric.compute()[0]), None
