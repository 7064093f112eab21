"""αₜ = α_min + (α_max − α_min)/ln T · ln(T − t + 1): the paper's weighting (eq. 7), early steps count more."""

import math

import torch
from torch import Tensor


def alphas(steps: int, low: float, high: float) -> Tensor:
    if steps == 1:
        return torch.tensor([high], dtype=torch.float64)
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    return low + (high - low) * (steps - t + 1).log() / math.log(steps)
