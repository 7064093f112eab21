"""Optimal Brain Surgeon, solved column by column in blocks (Hassibi & Stork 1993; SparseGPT, Frantar & Alistarh 2023).

A layer's problem is min over Ŵ of tr((W − Ŵ) H (W − Ŵ)ᵀ) with some entries of Ŵ zero. Removing w_q costs
w_q² / [H⁻¹]_qq and moves the weights to its right by −w_q / [H⁻¹]_qq · [H⁻¹]_q,: where the inverse is that of the
columns not yet passed. All those inverses stand in the rows of one upper Cholesky factor U of H⁻¹: UᵀU = H⁻¹ and
[H⁻¹]_qq = U_qq² for column q's turn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Select = Callable[[Tensor, int], Tensor]
"""(scores (rows, b) float, index of the first column) → keep mask (rows, b) bool."""

DAMPING_RAISE, DAMPING_TRIES = 10.0, 5


class FactorisationError(Exception):
    """No damping tried made the Hessian positive definite."""


@dataclass(frozen=True)
class Factor:
    """The sweep's view of a Hessian.

    Attributes:
        upper: (c, c) float32, U with UᵀU = (H + λI)⁻¹.
        dead: (c,) bool, columns whose input was always zero; their weights are free to go.
        damping: the λ used, in units of mean(diag H).
    """

    upper: Tensor
    dead: Tensor
    damping: float


def factor(hessian: Tensor, damping: float = 0.01) -> Factor:
    """Invert and factor a damped Hessian; a failure raises the damping tenfold, up to five times.

    Args:
        hessian: (c, c) float32, symmetric, positive semi-definite.
        damping: λ / mean(diag H); 0.01 in the official code.

    Raises:
        FactorisationError: the Hessian is not finite, or not positive definite at any damping tried.
    """
    if not torch.isfinite(hessian).all():
        raise FactorisationError("the Hessian is not finite")
    dead = hessian.diagonal() == 0
    live = torch.where(dead, torch.ones_like(hessian.diagonal()), hessian.diagonal())
    scale = live[~dead].mean() if not dead.all() else live.mean()
    for _ in range(DAMPING_TRIES + 1):
        damped = hessian.clone()
        damped.diagonal().copy_(live + damping * scale)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and torch.isfinite(upper).all():
                return Factor(upper, dead, damping)
        damping *= DAMPING_RAISE
    raise FactorisationError(f"the Hessian is not positive definite at damping {damping / DAMPING_RAISE:g}")


def saliency(weight: Tensor, factor: Factor, columns: slice) -> Tensor:
    """w² / [H⁻¹]_qq of a block of columns at its turn, (rows, b); dead columns cost nothing."""
    cost = (weight / factor.upper.diagonal()[columns]) ** 2
    return cost.masked_fill(factor.dead[columns], 0.0)


def sweep(
    weight: Tensor,
    factor: Factor,
    select: Select,
    block_size: int = 128,
    stride: int | None = None,
    compensate: bool = True,
) -> tuple[Tensor, Tensor]:
    """Prune and compensate a layer (OBS-Diff §3.2; SparseGPT algorithm 1).

    Args:
        weight: (rows, c) float32; left as it is.
        factor: of the layer's Hessian.
        select: decides the mask of the next columns from their saliencies when the sweep reaches them.
        block_size: the columns to the right of a block wait for one update a block; raised to a multiple of stride.
        stride: columns decided together, a whole block where left out.
        compensate: False leaves the remaining weights as they are: the mask alone, of saliencies that never moved.

    Returns:
        The pruned weight and its keep mask, (rows, c) each.
    """
    w = weight.masked_fill(factor.dead, 0.0)
    u = factor.upper
    keep = torch.ones_like(w, dtype=torch.bool)
    block_size = -(-block_size // stride) * stride if stride else block_size
    for start in range(0, w.shape[1], block_size):
        stop = min(start + block_size, w.shape[1])
        block = w[:, start:stop]
        errors = torch.zeros_like(block)
        for i in range(stop - start):
            q = start + i
            if i % (stride or block_size) == 0:
                chosen = slice(q, min(q + stride, stop) if stride else stop)
                keep[:, chosen] = select(saliency(w[:, chosen], factor, chosen), q)
            if compensate:
                errors[:, i] = block[:, i].masked_fill(keep[:, q], 0.0) / u[q, q]
                block[:, i:] -= torch.outer(errors[:, i], u[q, q:stop])
        w[:, stop:] -= errors @ u[start:stop, stop:]
    return w.masked_fill(~keep, 0.0), keep


def layer_error(dense: Tensor, pruned: Tensor, hessian: Tensor, reference: Tensor | None = None) -> float:
    """tr(ΔW H ΔWᵀ) / tr(W H Wᵀ): the calibration output's relative squared error; 0 for a layer without output.

    Args:
        dense, pruned: (rows, c).
        hessian: (c, c), of the error.
        reference: (c, c), of the output that it is set against, where that is another one.
    """
    delta = pruned - dense
    whole = float(((dense @ (hessian if reference is None else reference)) * dense).sum())
    return float(((delta @ hessian) * delta).sum()) / whole if whole > 0 else 0.0
