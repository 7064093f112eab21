"""A user's own numbers (`alphas` of the spec), first step first: spread evenly over the run, linear in between.

As many numbers as steps are taken as they are.
"""

import numpy as np
import torch
from torch import Tensor

from obsdiff.weightings import Traits

TRAITS = Traits(ranged=False, table=True)


def alphas(steps: int, low: float, high: float, table: tuple[float, ...]) -> Tensor:
    at = np.linspace(0, len(table) - 1, steps)
    return torch.from_numpy(np.interp(at, np.arange(len(table)), np.asarray(table, dtype=np.float64)))
