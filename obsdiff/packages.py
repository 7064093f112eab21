"""Module packages: the prunable layers in order of execution, cut into pieces that are calibrated together.

A group is the layers that read the same input (q, k, v) and so share one statistic. A unit is the groups that stay
in one package: both streams' counterparts of joint attention.
"""

from collections.abc import Sequence
from itertools import pairwise

Group = tuple[str, ...]
Unit = tuple[Group, ...]


def split(units: Sequence[Unit], count: int) -> list[list[Unit]]:
    """Cut units into `count` packages in order, sizes differing by one at most (fewer where units run out)."""
    count = min(count, len(units))
    edges = [round(i * len(units) / count) for i in range(count + 1)] if count else []
    return [list(units[a:b]) for a, b in pairwise(edges)]


def layers(units: Sequence[Unit]) -> list[str]:
    return [name for unit in units for group in unit for name in group]
