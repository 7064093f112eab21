"""Which cells are timed, and what stands where one is not.

Dense kernels multiply zeros like other numbers, and every mask of a sweep runs on them. What their timings would show
beside the dense model's is the machine's noise. So the dense model is timed once a model and sampling, and with it the
same weights with many of them zeroed, to show just that; cells whose layers have other shapes are timed each; all
others are *as dense*, and say so wherever a time or a speed-up would stand.
"""

from functools import cache
from typing import Literal

from eval import model_metrics
from eval.sweep.cells import Cell
from obsdiff import methods, patterns, registry

CELL, DENSE = "cell", "dense"
"""values of CellResult.latency's `of`: who was timed"""


def timed_as(cell: Cell) -> Literal["cell", "dense"]:
    """Whether a cell is timed itself, which the dense model and smaller layers are, or stands with the dense model."""
    if not methods.traits(cell.method).prunes:
        return "cell"
    return "cell" if patterns.resolve(cell.pattern).structured else "dense"


@cache
def clocked_names() -> frozenset[str]:
    """The metrics that come from a cell's own timings."""
    names = registry.names("eval.model_metrics")
    return frozenset(name for name in names if model_metrics.traits(name).clocked)
