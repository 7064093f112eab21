"""Which group goes first: by its cost, where several layers have a say by the sum of reciprocal ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

TIE = 1e-11
"""relative difference up to which costs count as equal: above what rounding makes in float64, below what data make"""
RANK_OFFSET = 60


def lowest(costs: Sequence[Tensor]) -> Tensor:
    """(1,) index of the group that goes, by the costs (n,) of each problem."""
    cost = costs[0] if len(costs) == 1 else fused([levelled(c) for c in costs])
    places = torch.arange(len(cost), device=cost.device)
    limit = cost.min() * (1 + TIE) if len(costs) == 1 else cost.min()
    return places.masked_fill(cost > limit, len(cost)).min().view(1)


def levelled(costs: Tensor) -> Tensor:
    """(n,) costs, those that are equal but for rounding made equal."""
    ordered, order = costs.sort(stable=True)
    begins = torch.ones_like(order, dtype=torch.bool)
    begins[1:] = ordered[1:] > ordered[:-1] * (1 + TIE)
    level = torch.arange(len(order), device=order.device).masked_fill(~begins, 0).cummax(0).values
    return torch.empty_like(costs).scatter_(0, order, ordered.index_select(0, level))


def fused(costs: Sequence[Tensor]) -> Tensor:
    """(n,) costs of several rankings → one cost: minus the sum of reciprocal ranks (Cormack et al. 2009, k = 60)."""
    ranks = [cost.argsort(stable=True).argsort(stable=True) for cost in costs]
    together = -torch.stack([1.0 / (RANK_OFFSET + 1 + rank) for rank in ranks]).sum(dim=0).double()
    total = torch.stack([c / c.sum().clamp_min(torch.finfo(c.dtype).tiny) for c in costs]).sum(dim=0)
    return together + 1e-9 * total
