"""OBS in a column sweep with every denoising step counted alike (Frantar & Alistarh 2023)."""

from obsdiff.methods import Traits

TRAITS = Traits(kinds=("mask", "structured"), statistic="hessian", solver="sweep", group="block")
