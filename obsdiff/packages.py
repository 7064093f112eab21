"""Module packages: the prunable layers in order of execution, cut into pieces that are calibrated together.

A group is the layers that read the same input (q, k, v) and so share one statistic. A unit is the groups that stay
in one package: both streams' counterparts of joint attention.
"""

from collections.abc import Sequence
from itertools import pairwise

Group = tuple[str, ...]
Unit = tuple[Group, ...]

GIB = 2**30


def split(sizes: Sequence[int], packages: int | str) -> list[range]:
    """Cut units into packages in order.

    Args:
        sizes: bytes of each unit's statistics.
        packages: a count (sizes differ by one unit at most; fewer packages where units run out), 'unit' and
            'sequential' for one per unit, or a budget such as '2GiB' for the fewest whose statistics fit into it.

    Returns:
        The indices of each package's units.

    Raises:
        ValueError: a unit alone exceeds the budget; the first such index is its second argument.
    """
    if isinstance(packages, str) and packages.endswith("GiB"):
        return by_bytes(sizes, bytes_of(packages))
    count = len(sizes) if packages in ("unit", "sequential") else min(int(packages), len(sizes))
    edges = [round(i * len(sizes) / count) for i in range(count + 1)] if count else []
    return [range(a, b) for a, b in pairwise(edges)]


def bytes_of(budget: str) -> int:
    """`2GiB` in bytes."""
    return int(float(budget.removesuffix("GiB")) * GIB)


def by_bytes(sizes: Sequence[int], budget: int) -> list[range]:
    cut: list[range] = []
    for i, size in enumerate(sizes):
        if size > budget:
            raise ValueError(f"{budget / GIB:.3g} GiB is less than the {size / GIB:.3g} GiB of one unit", i)
        if cut and sum(sizes[cut[-1].start : i]) + size <= budget:
            cut[-1] = range(cut[-1].start, i + 1)
        else:
            cut.append(range(i, i + 1))
    return cut


def layers(units: Sequence[Unit]) -> list[str]:
    return [name for unit in units for group in unit for name in group]
