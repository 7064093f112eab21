"""Uniformly random weights, heads or neurons of each layer: the floor that every method must clear."""

import torch
from torch import Tensor

from obsdiff.methods import Traits
from obsdiff.solver.statistics import Input

TRAITS = Traits(kinds=("mask", "structured"))


def score(weight: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def score_columns(columns: Tensor, producers: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    return torch.rand(columns.shape[1], generator=generator).to(columns.device)
