"""OBS in a column sweep with every denoising step counted alike (Frantar & Alistarh 2023)."""

KINDS = ("mask", "structured")
STATISTIC = "hessian"
WEIGHTED = False
COMPENSATES = True
GROUP = "block"
PRUNES = True
