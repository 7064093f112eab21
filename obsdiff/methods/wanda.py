"""|w| · ‖x_j‖₂, compared within an output row, no update (Sun et al. 2024); timestep-weighted as in OBS-Diff §4."""

import torch
from torch import Tensor

STATISTIC = "squared_norm"
WEIGHTED = True
COMPENSATES = False
GROUP = "row"
PRUNES = True


def score(weight: Tensor, statistic: Tensor | None, generator: torch.Generator) -> Tensor:
    assert statistic is not None
    return weight.abs() * statistic.sqrt()
