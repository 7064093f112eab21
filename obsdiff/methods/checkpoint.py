"""Weights that somebody else pruned, taken from PruneSpec.weights: published results under one's own protocol."""

from obsdiff.methods import Traits

TRAITS = Traits(kinds=("mask",), given=True)
