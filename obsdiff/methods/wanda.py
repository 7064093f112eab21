"""|w| · ‖x_j‖₂, compared within an output row, no update (Sun et al. 2024); timestep-weighted as in OBS-Diff §4.

Heads and neurons: the sum over the weights that read them (Wanda-sp, An et al. 2024).
"""

import torch
from torch import Tensor

from obsdiff.methods import Traits
from obsdiff.solver.statistics import Input

TRAITS = Traits(kinds=("mask", "structured"), statistic="moments", weighted=True, group="row")


def score(weight: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    assert input is not None
    return weight.abs() * input.squared_norm.sqrt()


def score_columns(columns: Tensor, producers: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    return score(columns, input, generator).sum(dim=0)
