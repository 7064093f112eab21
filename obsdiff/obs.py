"""Optimal Brain Surgeon, solved column by column in blocks (Hassibi & Stork 1993; SparseGPT, Frantar & Alistarh 2023).

A layer's problem is min over Ŵ of tr((W − Ŵ) H (W − Ŵ)ᵀ) with some entries of Ŵ zero. Removing w_q costs
w_q² / [H⁻¹]_qq and moves the weights to its right by −w_q / [H⁻¹]_qq · [H⁻¹]_q,: where the inverse is that of the
columns not yet passed. All those inverses stand in the rows of one upper Cholesky factor U of H⁻¹: UᵀU = H⁻¹ and
[H⁻¹]_qq = U_qq² for column q's turn.
"""

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Problem:
    """One linear layer whose input columns are removed in groups.

    Attributes:
        weight: (rows, c) float32.
        factor: of its Hessian.
        first: index of the first group's first column.
    """

    weight: Tensor
    factor: Factor
    first: int = 0


def eliminate(
    problems: Sequence[Problem], size: int, groups: int, count: int, compensate: bool = True
) -> tuple[list[Tensor], Tensor]:
    """Remove whole groups of columns, the same of every problem, one at a time (OBS-Diff §3.3).

    A group S costs tr(W_S ([H⁻¹]_SS)⁻¹ W_Sᵀ), exact for a group as it is for one weight; after each removal all other
    columns move, those before it too, and so the final weights are the least-squares optimum of the columns that are
    left. Several problems (the picture's and the text's output projection of joint attention) rank their groups
    together by reciprocal rank, ties by relative cost.

    Args:
        problems: with the same groups at their own `first`; computed in float64.
        size: columns a group.
        groups: how many there are.
        count: how many are removed.
        compensate: False removes the groups of least cost at the outset, and moves nothing.

    Returns:
        The weights, (rows, c) float32 with the removed columns zero, and the kept groups, ascending int64.
    """
    weights = [p.weight.masked_fill(p.factor.dead, 0.0).double() for p in problems]
    # H⁻¹ = UᵀU of the damped Hessian, as the sweep has it
    inverses = [p.factor.upper.double().T @ p.factor.upper.double() for p in problems]
    alive = torch.ones(groups, dtype=torch.bool, device=weights[0].device)

    def costs() -> Tensor:
        """Of the groups that are left, in order."""
        parts = zip(weights, inverses, problems, strict=True)
        return fused([group_costs(w, h, p.first, size, groups)[alive] for w, h, p in parts])

    if not compensate:
        alive[costs().argsort(stable=True)[:count]] = False
    for _ in range(count if compensate else 0):
        gone = int(alive.nonzero()[costs().argmin(), 0])
        alive[gone] = False
        for k, problem in enumerate(problems):
            columns = slice(problem.first + gone * size, problem.first + (gone + 1) * size)
            h = inverses[k]
            moved = torch.linalg.solve(h[columns, columns], h[columns])
            weights[k] -= weights[k][:, columns] @ moved
            h -= h[:, columns] @ moved
            weights[k][:, columns] = 0.0
            h[columns], h[:, columns] = 0.0, 0.0
            h[columns, columns] = torch.eye(size, dtype=h.dtype, device=h.device)
    dead = (~alive).repeat_interleave(size)
    for weight, problem in zip(weights, problems, strict=True):
        weight[:, problem.first : problem.first + groups * size].masked_fill_(dead, 0.0)
    return [w.float() for w in weights], alive.nonzero()[:, 0]


def group_costs(weight: Tensor, inverse: Tensor, first: int, size: int, groups: int) -> Tensor:
    """tr(W_S ([H⁻¹]_SS)⁻¹ W_Sᵀ) of every group S of `size` columns from `first` on: (groups,)."""
    span = slice(first, first + groups * size)
    if size == 1:
        return weight[:, span].square().sum(dim=0) / inverse.diagonal()[span]
    parts = weight[:, span].reshape(-1, groups, size).permute(1, 2, 0)
    blocks = torch.stack([inverse[i : i + size, i : i + size] for i in range(first, first + groups * size, size)])
    moved: Tensor = torch.linalg.solve(blocks, parts)
    return (moved * parts).sum(dim=(1, 2))


RANK_OFFSET = 60


def fused(costs: Sequence[Tensor]) -> Tensor:
    """(n,) costs of several rankings → one cost: minus the sum of reciprocal ranks (Cormack et al. 2009, k = 60)."""
    ranks = [cost.argsort(stable=True).argsort(stable=True) for cost in costs]
    together = -torch.stack([1.0 / (RANK_OFFSET + 1 + rank) for rank in ranks]).sum(dim=0).double()
    total = torch.stack([c / c.sum().clamp_min(torch.finfo(c.dtype).tiny) for c in costs]).sum(dim=0)
    return together + 1e-9 * total


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
