"""The L1 norm of all weights of a head or neuron, those that make it and those that read it (Li et al. 2017)."""

import torch
from torch import Tensor

from obsdiff.methods import Traits
from obsdiff.solver.statistics import Input

TRAITS = Traits(kinds=("structured",))


def score_columns(columns: Tensor, producers: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    return columns.abs().sum(dim=0) + producers.abs().sum(dim=1)
