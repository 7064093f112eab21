"""Elimination as its formulas are written: costs of all groups anew and the whole inverse downdated at every removal.

The reference of tests and benchmarks for `obsdiff.solver.elimination`, which does the same in blocks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from obsdiff.solver.elimination import Problem, group_costs
from obsdiff.solver.ranking import fused


def eliminate(
    problems: Sequence[Problem], size: int, groups: int, count: int, compensate: bool = True
) -> tuple[list[Tensor], Tensor]:
    """As obsdiff.solver.elimination.eliminate."""
    weights = [p.weight.masked_fill(p.factor.dead, 0.0).double() for p in problems]
    # H⁻¹ = UᵀU of the damped Hessian, as in the sweep
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
