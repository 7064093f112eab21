"""αₜ = α_min + (α_max − α_min)(t − 1)/(T − 1): later steps count more."""

import torch
from torch import Tensor


def alphas(steps: int, low: float, high: float) -> Tensor:
    return torch.linspace(low, high, steps, dtype=torch.float64)
