"""Uniformly random weights of each layer: the floor that every method must clear."""

import torch
from torch import Tensor

STATISTIC = None
WEIGHTED = False
COMPENSATES = False
GROUP = "layer"
PRUNES = True


def score(weight: Tensor, statistic: Tensor | None, generator: torch.Generator) -> Tensor:
    return torch.rand(weight.shape, generator=generator).to(weight.device)
