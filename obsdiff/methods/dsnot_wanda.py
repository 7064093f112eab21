"""DSnoT started from Wanda's mask, as its authors have it by default (Zhang et al. 2024)."""

from obsdiff.methods.dsnot import refine as refine
from obsdiff.methods.wanda import score as score

KINDS = ("mask",)
STATISTIC = "moments"
WEIGHTED = True
COMPENSATES = False
GROUP = "row"
PRUNES = True
