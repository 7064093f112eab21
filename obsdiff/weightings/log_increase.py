"""αₜ = α_min + (α_max − α_min)/ln T · ln t: later steps count more, levelling off."""

import math

import torch
from torch import Tensor


def alphas(steps: int, low: float, high: float) -> Tensor:
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    return low + (high - low) * t.log() / math.log(max(steps, 2))
