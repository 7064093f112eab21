"""OBS in a column sweep on the timestep-weighted Hessian (Zhu et al. 2026, arXiv 2510.06751)."""

from obsdiff.methods import Traits

TRAITS = Traits(kinds=("mask", "structured"), statistic="hessian", weighted=True, solver="sweep", group="block")
