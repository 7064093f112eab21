"""The model as it is: the reference row of every table."""

from obsdiff.methods import Traits

TRAITS = Traits(kinds=("mask", "structured"), prunes=False)
