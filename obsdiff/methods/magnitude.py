"""|w|, compared within a layer (Han et al. 2015); for heads and neurons the L2 norm of all their weights."""

import torch
from torch import Tensor

from obsdiff.methods import Traits
from obsdiff.solver.statistics import Input

TRAITS = Traits(kinds=("mask", "structured"))


def score(weight: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    return weight.abs()


def score_columns(columns: Tensor, producers: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    return columns.square().sum(dim=0) + producers.square().sum(dim=1)
