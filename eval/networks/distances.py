"""Distances of two sets of features, and their bootstrap replicates over the first set.

A replicate is a row of weights: how often each image is taken (eval/bootstrap.py). No image is looked
at again, and all sums are float64: kernel means and traces differ in their last digits.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from eval import bootstrap as resampling

ROWS = 512
"""of a block of a kernel matrix: 40,000 columns of it are 160 MB"""

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(a, d) and (b, d) → (a, b)"""


class Given(torch.nn.Module):
    """Features that are already computed, for torchmetrics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet(features: Tensor, reference: Tensor, device: str = "cpu") -> tuple[float, list[float]]:
    """The Fréchet distance by torchmetrics, and its replicates.

    With fewer images than dimensions the covariances are singular, and the value is finite all the same.

    Args:
        features: (n, d) float32, of the images.
        reference: (m, d) float32, of real ones.
        device: where to compute the replicates.
    """
    metric = FrechetInceptionDistance(feature=Given(features.shape[1])).eval()
    metric.update(reference, real=True)
    metric.update(features, real=False)
    return float(metric.compute()), frechet_replicates(features, reference, device)


def rank_warning(features: Tensor, reference: Tensor) -> str | None:
    """A covariance of n features has rank n − 1 at most; below the dimensions FID falls with every image more."""
    (own, width), real = features.shape, len(reference)
    if min(own, real) > width:
        return None
    return (
        f"covariance rank-deficient: {own} images and {real} real ones in {width} dimensions; compare this FID with "
        "those of as many images only, and read KID and CMMD beside it"
    )


def frechet_replicates(features: Tensor, reference: Tensor, device: str = "cpu") -> list[float]:
    """Fréchet distances of resampled features to the reference (Dowson and Landau 1982), covariances over n − 1.

    Tr (ΣΣ')^½ is the sum of the square roots of the eigenvalues of LᵀΣL where Σ' = LLᵀ, or of the Gram matrix of the
    distinct images where they are fewer than the dimensions. On one CPU thread 500 replicates of 256 images in 128
    dimensions take 0.6 s; in 2,048 dimensions one replicate takes 0.03 s of 1,000 images and 1.1 s of 5,000.

    Args:
        features: (n, d), of the images.
        reference: (m, d).
        device: where to compute.

    Returns:
        REPLICATES numbers.
    """
    real = reference.to(device, torch.float64)
    own = features.to(device, torch.float64) - real.mean(dim=0)
    taken = torch.from_numpy(resampling.counts(len(own))).to(own)
    values, vectors = torch.linalg.eigh(torch.cov(real.T))
    projected = own @ (vectors * values.clamp(min=0).sqrt())
    norms, total = own.square().sum(dim=1), values.sum()
    gram = projected @ projected.T if len(own) < 2 * own.shape[1] else None
    return [total_distance(own, projected, gram, norms, weights) + float(total) for weights in taken]


def total_distance(own: Tensor, projected: Tensor, gram: Tensor | None, norms: Tensor, weights: Tensor) -> float:
    """A replicate's distance less the trace of the reference's covariance.

    Args:
        own: (n, d), the reference's mean taken off.
        projected: (n, d), own @ L.
        gram: (n, n), projected @ projected.T, where fewer distinct images than dimensions are to be expected.
        norms: (n,), squared norms of own.
        weights: (n,), summing to n.
    """
    n, width = own.shape
    mean = weights @ own / n
    trace = (weights @ norms - n * mean.square().sum()) / (n - 1)
    there = weights.nonzero()[:, 0]
    if gram is not None and len(there) < width:
        rows = gram @ weights / n
        centred = gram[there][:, there] - rows[there, None] - rows[there] + weights @ rows / n
        side = weights[there].sqrt()
        inner = side[:, None] * centred * side
    else:
        middle = weights @ projected / n
        rows = projected[there] * weights[there, None].sqrt()
        inner = rows.T @ rows - n * torch.outer(middle, middle)
    root = (torch.linalg.eigvalsh(inner).clamp(min=0) / (n - 1)).sqrt().sum()
    return float(mean.square().sum() + trace - 2 * root)


def squared_mmd(
    features: Tensor, reference: Tensor, kernel: Kernel, unbiased: bool, device: str = "cpu"
) -> tuple[float, list[float]]:
    """Squared maximum mean discrepancy of two sets (Gretton et al. 2012), and its replicates over the first.

    Args:
        features: (n, d), of the images.
        reference: (m, d); its own term is computed once.
        kernel: of float64 rows.
        unbiased: the U-statistic (their eq. 3), which leaves out pairs of an image with itself, also where a replicate
            takes it twice (one of a single image has no pair, and no such term); else the V-statistic (eq. 5).
        device: where to compute.
    """
    own, real = (f.to(device, torch.float64) for f in (features, reference))
    ones = torch.ones(1, len(own), dtype=torch.float64, device=device)
    taken = torch.cat([ones, torch.from_numpy(resampling.counts(len(own))).to(ones)])
    pairs, cross = torch.zeros(len(taken)).to(ones), torch.empty(len(own)).to(ones)
    for start in range(0, len(own), ROWS):
        rows = slice(start, start + ROWS)
        block = kernel(own[rows], own)
        if unbiased:
            block.diagonal(start).zero_()
        pairs += ((block @ taken.T) * taken[:, rows].T).sum(dim=0)
        cross[rows] = kernel(own[rows], real).mean(dim=1)
    n = len(own)
    pairs /= (n**2 - taken.square().sum(dim=1)).clamp(min=1) if unbiased else n**2
    found = pairs + mean_of_pairs(real, kernel, unbiased) - 2 * taken @ cross / n
    return float(found[0]), found[1:].tolist()


def mean_of_pairs(rows: Tensor, kernel: Kernel, unbiased: bool) -> float:
    """Mean of the kernel over pairs of rows, those of a row with itself left out where unbiased.

    The kernel is symmetric: blocks below the diagonal are not computed.
    """
    total = 0.0
    for start in range(0, len(rows), ROWS):
        block = kernel(rows[start : start + ROWS], rows[start:])
        own = block[:, : len(block)]
        within = own.sum() - own.trace() if unbiased else own.sum()
        total += float(within + 2 * block[:, len(block) :].sum())
    return total / (len(rows) * (len(rows) - unbiased))
