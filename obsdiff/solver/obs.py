"""Optimal Brain Surgeon, solved column by column in blocks (Hassibi & Stork 1993; SparseGPT, Frantar & Alistarh 2023).

A layer's problem is min over Ŵ of tr((W − Ŵ) H (W − Ŵ)ᵀ) with some entries of Ŵ zero. Removing w_q costs
w_q² / [H⁻¹]_qq and moves the weights to its right by −w_q / [H⁻¹]_qq · [H⁻¹]_q,: where the inverse is that of the
columns not yet passed. All those inverses stand in the rows of one upper Cholesky factor U of H⁻¹: UᵀU = H⁻¹ and
[H⁻¹]_qq = U_qq² for column q's turn (factors.py).

The sweep works on Wᵀ, so that a column is contiguous, and keeps e_q = w_q / U_qq of every weight removed at its turn.
Columns to the right change by −Σ_q e_q U_q,: whose sums are matrix products but for the last few columns, and the costs
of all removals add up to the layer's error, Σ e² = tr(ΔW H ΔWᵀ).
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from obsdiff.solver.factors import Factor

Select = Callable[[Tensor, int], Tensor]
"""(scores (rows, b) float, index of the first column) → keep mask (rows, b) bool; neither needs to be contiguous."""

LEAF = 16
"""columns that follow one another as vectors; matrix products carry everything between leaves"""
ENERGY_BLOCK = 512
"""columns a product, where a quadratic form is summed up block by block"""
EXACT = 0.01
"""share of Σ e² that must be left without the damping's part for the layer's error to be told by a difference"""


def saliency(weight: Tensor, factor: Factor, columns: slice) -> Tensor:
    """w² / [H⁻¹]_qq of a block of columns at its turn, (rows, b); dead columns cost nothing."""
    cost = (weight / factor.upper.diagonal()[columns]).square_()
    return cost.masked_fill_(factor.dead[columns], 0.0)


class Swept(NamedTuple):
    """A layer with zeros.

    Attributes:
        weight: (rows, c) float32.
        keep: (rows, c) bool, the weights that stay.
        error: tr(ΔW H ΔWᵀ), or None where the solver does not know it to four digits: no weight was moved, or the
            damping makes up nearly all of what the removals cost.
    """

    weight: Tensor
    keep: Tensor
    error: float | None


def sweep(
    weight: Tensor,
    factor: Factor,
    select: Select,
    block_size: int = 128,
    stride: int | None = None,
    compensate: bool = True,
    stay: int | None = None,
) -> Swept:
    """Prune and compensate a layer (OBS-Diff §3.2; SparseGPT algorithm 1).

    Args:
        weight: (rows, c) float32; left as it is.
        factor: of the layer's Hessian.
        select: decides the mask of the next columns from their saliencies when the sweep reaches them.
        block_size: the columns to the right of a block wait for one update a block; raised to a multiple of stride.
        stride: columns decided together, by default a whole block.
        compensate: False leaves the remaining weights as they are: the mask alone, of saliencies that never moved.
        stay: N, where select() keeps the N highest of every `stride` columns of a row (N:M); a GPU then decides
            in its own kernel.
    """
    columns = weight.shape[1]
    block_size = multiple(block_size, stride or 1)
    blocks = [slice(i, min(i + block_size, columns)) for i in range(0, columns, block_size)]
    if not compensate:
        keep = torch.cat([select(saliency(weight[:, b], factor, b), b.start) for b in blocks], dim=1)
        return Swept(weight.masked_fill(~keep | factor.dead, 0.0), keep, None)
    w = weight.T.clone(memory_format=torch.contiguous_format).masked_fill_(factor.dead[:, None], 0.0)
    keep = torch.empty(w.shape, dtype=torch.bool, device=w.device)
    buffer = torch.empty_like(w[:block_size])
    costs = []
    for b in blocks:
        errors = buffer[: b.stop - b.start]
        sweep_block(w[b], keep[b], errors, factor, select, b, stride, stay)
        w[b.stop :].addmm_(factor.upper[b, b.stop :].T, errors, alpha=-1)
        costs.append(torch.linalg.vector_norm(errors, dim=1))
    pruned, keep = w.T.contiguous(), keep.T.contiguous()
    del w
    moved = (pruned - weight).square_().sum(dim=0).masked_fill_(factor.dead, 0.0)
    whole, damped = torch.stack(
        [torch.cat(costs).double().square().sum(), factor.ridge * moved.double().sum()]
    ).tolist()
    error = whole - damped
    return Swept(pruned, keep, error if error >= EXACT * whole else None)


def sweep_block(
    w: Tensor,
    keep: Tensor,
    errors: Tensor,
    factor: Factor,
    select: Select,
    block: slice,
    stride: int | None,
    stay: int | None,
) -> None:
    """Prune one block of columns, which what was removed before it has already moved.

    Args:
        w: (b, rows), the block's columns of Wᵀ; pruned in place.
        keep: (b, rows) bool, filled in.
        errors: (b, rows), filled with e_q = w_q / U_qq of what is removed, at its turn; zero elsewhere.
        block: its columns in the layer.
        stride: columns decided together, by default the whole block.
        stay: as in sweep().
    """
    size = block.stop - block.start
    u = factor.upper[block, block]
    pivots = u.diagonal()[:, None]

    def decide(i: int, j: int) -> None:
        columns = slice(block.start + i, block.start + j)
        keep[i:j] = select(saliency(w[i:j].T, factor, columns), columns.start).T
        # 1 / U_qq of what goes, which the weights at their turn make e_q
        torch.div(~keep[i:j], pivots[i:j], out=errors[i:j])

    if stride is None:
        decide(0, size)
    leaf = multiple(LEAF, stride or 1)
    in_kernel = (stride is None or stay is not None) and kernels(w)
    for first in range(0, size, leaf):
        last = min(first + leaf, size)
        if first:
            w[first:last].addmm_(u[:first, first:last].T, errors[:first], alpha=-1)
        if in_kernel:
            from obsdiff.solver.leaf import sweep_leaf

            own, dead = slice(first, last), factor.dead[block][first:last]
            sweep_leaf(w[own], keep[own], errors[own], u[own, own], dead, stay or 0, stride or 1)
            continue
        for start in range(first, last, stride or leaf):
            stop = min(start + (stride or leaf), last)
            if stride is not None:
                if start > first:
                    w[start:stop].addmm_(u[first:start, start:stop].T, errors[first:start], alpha=-1)
                decide(start, stop)
            for q in range(start, stop):
                if q > start:
                    w[q].addmv_(errors[start:q].T, u[start:q, q], alpha=-1)
                errors[q].mul_(w[q])
    w.masked_fill_(~keep, 0.0)


def kernels(tensor: Tensor) -> bool:
    """Whether kernels of our own run where it is: on a GPU that Triton compiles for."""
    return tensor.is_cuda and triton_found()


@cache
def triton_found() -> bool:
    return find_spec("triton") is not None


def multiple(size: int, of: int) -> int:
    """The smallest multiple of a number that is no less than size."""
    return -(-size // of) * of


def layer_error(dense: Tensor, pruned: Tensor, hessian: Tensor, reference: Tensor | None = None) -> float:
    """tr(ΔW H ΔWᵀ) / tr(W H Wᵀ): the calibration output's relative squared error; 0 for a layer without output.

    Args:
        dense, pruned: (rows, c).
        hessian: (c, c), of the error.
        reference: (c, c), of the output that it is set against, where that is another one.
    """
    return relative(energy(pruned - dense, hessian), dense, hessian if reference is None else reference)


def relative(error: float, dense: Tensor, reference: Tensor) -> float:
    """An error over tr(W H Wᵀ), the energy of the dense layer's output; 0 for a layer without output."""
    whole = energy(dense, reference)
    return error / whole if whole > 0 else 0.0


def energy(weight: Tensor, hessian: Tensor) -> float:
    """tr(W H Wᵀ) of (rows, c) and a symmetric (c, c); half a product, because only H's upper triangle is read."""
    columns, total = weight.shape[1], []
    for start in range(0, columns, ENERGY_BLOCK):
        stop = min(start + ENERGY_BLOCK, columns)
        block, own = weight[:, start:stop], hessian[start:stop, start:stop]
        sums = block @ own
        sums.addmm_(weight[:, :start], hessian[:start, start:stop], alpha=2.0)
        total.append(sums.mul_(block).sum(dtype=torch.float64))
    return float(torch.stack(total).sum())
