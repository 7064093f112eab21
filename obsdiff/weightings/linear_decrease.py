"""αₜ = α_max − (α_max − α_min)(t − 1)/(T − 1): earlier steps count more."""

import torch
from torch import Tensor


def alphas(steps: int, low: float, high: float) -> Tensor:
    return torch.linspace(high, low, steps, dtype=torch.float64)
