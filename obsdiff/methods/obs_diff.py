"""OBS in a column sweep on the timestep-weighted Hessian (Zhu et al. 2026, arXiv 2510.06751)."""

KINDS = ("mask", "structured")
STATISTIC = "hessian"
WEIGHTED = True
COMPENSATES = True
GROUP = "block"
PRUNES = True
