"""αₜ = α_max · (α_min/α_max)^((t − 1)/(T − 1)): early steps count more, by the same factor from step to step."""

import torch
from torch import Tensor


def alphas(steps: int, low: float, high: float) -> Tensor:
    t = torch.arange(steps, dtype=torch.float64)
    return high * (low / high) ** (t / max(steps - 1, 1))
