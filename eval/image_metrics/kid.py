"""Kernel distance of the pictures' features to the real pictures' (Bińkowski et al. 2018), by torchmetrics."""

import warnings

import torch
from torchmetrics.image.kid import KernelInceptionDistance

from eval.image_metrics import Pictures, Value
from eval.image_metrics.fid import Given

TITLE = "KID"
UNIT = "×1000, {network} features"
HIGHER_IS_BETTER = False
LIBRARY = "torchmetrics"
READS = ("fid_features", "reference")
SUBSETS = 50


def compute(pictures: Pictures) -> Value:
    """1000 × the mean over 50 seeded subsets of half the pictures; on the features of FID."""
    n, width = pictures.fid_features.shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
        metric = KernelInceptionDistance(feature=Given(width), subsets=SUBSETS, subset_size=max(2, n // 2)).eval()
    metric.update(pictures.reference, real=True)
    metric.update(pictures.fid_features, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return 1000 * float(metric.compute()[0]), None
