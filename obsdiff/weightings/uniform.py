"""αₜ = 1: every step counts alike, as in SparseGPT."""

import torch
from torch import Tensor

from obsdiff.weightings import Traits

TRAITS = Traits(ranged=False)


def alphas(steps: int, low: float, high: float) -> Tensor:
    return torch.ones(steps, dtype=torch.float64)
