"""Whole groups of a layer's input columns removed by Optimal Brain Surgeon (OBS-Diff §3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from obsdiff import obs


@dataclass(frozen=True)
class Problem:
    """One linear layer whose input columns are removed in groups.

    Attributes:
        weight: (rows, c) float32.
        factor: of its Hessian.
        first: index of the first group's first column.
    """

    weight: Tensor
    factor: obs.Factor
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
