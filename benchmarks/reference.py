"""The plain solver: what obsdiff/solver/obs.py and the patterns are measured against, and give the same masks as.

The factor by two Cholesky factorisations and an inverse between them, every column's change as an outer product, masks
by a stable sort. Any dtype: in float64 it says what rounding did to either.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Select = Callable[[Tensor, int], Tensor]


def factor(hessian: Tensor, damping: float) -> Tensor:
    """U, upper, with UᵀU = (H + λI)⁻¹; λ = damping · mean(diag H). Of a positive definite (c, c)."""
    damped = hessian.clone()
    damped.diagonal().add_(damping * hessian.diagonal().mean())
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


def sweep(
    weight: Tensor, upper: Tensor, select: Select, block_size: int, stride: int | None = None
) -> tuple[Tensor, Tensor]:
    """Prune and compensate (rows, c) weights column by column; updates to the right of a block wait for its end.

    Args:
        stride: columns decided together, a divisor of block_size; the whole block by default.

    Returns:
        The pruned weight and its keep mask.
    """
    w, pivots = weight.clone(), upper.diagonal()
    keep = torch.ones_like(w, dtype=torch.bool)
    for start in range(0, w.shape[1], block_size):
        stop = min(start + block_size, w.shape[1])
        block = w[:, start:stop]
        errors = torch.zeros_like(block)
        for i in range(stop - start):
            q = start + i
            if i % (stride or block_size) == 0:
                chosen = slice(q, min(q + (stride or block_size), stop))
                keep[:, chosen] = select((w[:, chosen] / pivots[chosen]) ** 2, q)
            errors[:, i] = block[:, i].masked_fill(keep[:, q], 0.0) / pivots[q]
            block[:, i:] -= torch.outer(errors[:, i], upper[q, q:stop])
        w[:, stop:] -= errors @ upper[start:stop, stop:]
    return w.masked_fill(~keep, 0.0), keep


def unstructured(scores: Tensor, sparsity: float, start: int) -> Tensor:
    """The mask of a block of columns: exact over the layer, ties in row-major order."""
    rows, columns = scores.shape
    removed = round(rows * (start + columns) * sparsity) - round(rows * start * sparsity)
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    keep[scores.flatten().argsort(stable=True)[:removed]] = False
    return keep.view_as(scores)


def by_row(scores: Tensor, sparsity: float) -> Tensor:
    """The mask within rows: exact over the layer, ties in column order."""
    rows, columns = scores.shape
    quota = torch.diff(torch.round(torch.arange(rows + 1, dtype=torch.float64) * columns * sparsity)).long()
    return scores.argsort(dim=1, stable=True).argsort(dim=1) >= quota.to(scores.device)[:, None]


def n_m(scores: Tensor, n: int, m: int) -> Tensor:
    """The n highest of every m columns of a row stay, ties in column order."""
    rows, columns = scores.shape
    grouped = scores.reshape(rows, columns // m, m)
    return (grouped.argsort(dim=-1, stable=True).argsort(dim=-1) >= m - n).view(rows, columns)


def layer_error(dense: Tensor, pruned: Tensor, hessian: Tensor) -> float:
    """tr(ΔW H ΔWᵀ) / tr(W H Wᵀ) by two products."""
    delta = pruned - dense
    return float(((delta @ hessian) * delta).sum()) / float(((dense @ hessian) * dense).sum())
