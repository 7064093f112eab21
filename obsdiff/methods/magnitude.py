"""|w|, compared within a layer (Han et al. 2015)."""

import torch
from torch import Tensor

STATISTIC = None
WEIGHTED = False
COMPENSATES = False
GROUP = "layer"
PRUNES = True


def score(weight: Tensor, statistic: Tensor | None, generator: torch.Generator) -> Tensor:
    return weight.abs()
