"""αₜ = α_min + (α_max − α_min) · (1 + cos(π (t − 1)/(T − 1)))/2: early steps count more, slowly first and last."""

import math

import torch
from torch import Tensor


def alphas(steps: int, low: float, high: float) -> Tensor:
    t = torch.arange(steps, dtype=torch.float64)
    return low + (high - low) * (1 + (math.pi * t / max(steps - 1, 1)).cos()) / 2
