"""DSnoT started from Wanda's mask, as its authors have it by default (Zhang et al. 2024)."""

from obsdiff.methods import Traits
from obsdiff.methods.dsnot import refine as refine
from obsdiff.methods.wanda import score as score

TRAITS = Traits(statistic="moments", weighted=True, group="row")
