"""The model as it is: the reference row of every table."""

KINDS = ("mask", "structured")
STATISTIC = None
WEIGHTED = False
COMPENSATES = False
GROUP = "layer"
PRUNES = False
