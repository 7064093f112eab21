"""Which configurations a metric tells apart: from the best, OBS-Diff, the dense model, and their method unchanged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from eval.analysis import shown
from eval.analysis.configurations import Configurations, Paired
from eval.analysis.estimates import measured
from eval.sweep.cells import AXES, PLAIN, Cell, named

GROUP = ("model", "pattern", "sparsity", "sampling")
BASE = "obs_diff"
COLUMNS = (
    *(axis for axis in AXES if axis != "seed"),
    *("against", "of", "metric", "seeds", "first", "second", "difference", "low", "high", "distinguishable"),
)
"""of differences.csv"""
Against = Literal["best", "base", "dense", "plain"]


@dataclass(frozen=True)
class Comparison:
    """first − second in a metric.

    Attributes:
        against: what the second is: the best of its group in this metric, the group's base, the dense model, or the
            same method with no options or calibration of its own.
    """

    first: Cell
    second: Cell
    against: Against
    metric: str
    paired: Paired


def groups(configurations: Configurations) -> list[list[Cell]]:
    """Pruned configurations that share model, pattern, sparsity and sampling."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in configurations:
        if float(cell.sparsity) > 0:
            found.setdefault(tuple(getattr(cell, axis) for axis in GROUP), []).append(cell)
    return list(found.values())


def best_of(group: Sequence[Cell], configurations: Configurations, name: str) -> Cell | None:
    """The best mean over seeds; None of fewer than two that have measured it, and where no direction is better."""
    known = [cell for cell in group if measured(configurations[cell], name)]
    if len(known) < 2:
        return None
    higher = configurations[known[0]][0].metrics[name].higher_is_better
    if higher is None:
        return None

    def value(cell: Cell) -> float:
        found = configurations[cell].estimate(name)
        assert found is not None
        return found.value

    return (max if higher else min)(known, key=value)


def base_of(group: Sequence[Cell], configurations: Configurations) -> Cell | None:
    """The first OBS-Diff configuration, else that of the best FID."""
    own = next((cell for cell in group if cell.method == BASE), None)
    return own or best_of(group, configurations, "fid")


def comparisons(configurations: Configurations) -> list[Comparison]:
    """Every pruned configuration against the best and the base of its group, and its plain one where that is another.

    In quality also against its dense model.

    Those are left out whose difference has no interval, or that share no seed.
    """
    return [
        Comparison(first, second, against, name, found)
        for group in groups(configurations)
        for name in shown.measured()
        for first, second, against in pairs_of(group, configurations, name)
        if (found := configurations[first].minus(configurations[second], name)) is not None
    ]


def pairs_of(group: Sequence[Cell], configurations: Configurations, name: str) -> Iterator[tuple[Cell, Cell, Against]]:
    best, base = best_of(group, configurations, name), base_of(group, configurations)
    for cell in group:
        plain = replace(cell, options=PLAIN, calibration=PLAIN)
        if plain in group and plain not in (cell, base):
            yield cell, plain, "plain"
        if best is not None and cell != best:
            yield cell, best, "best"
        if base is not None and cell != base:
            yield cell, base, "base"
        if name in shown.names("quality") and cell.dense() in configurations:
            yield cell, cell.dense(), "dense"


def tidy(found: Sequence[Comparison]) -> pd.DataFrame:
    """One line per comparison, COLUMNS: the first's axes, what the second is, its label, and the rest.

    `distinguishable` says whether the interval leaves out 0.
    """
    lines = []
    for one in found:
        paired = one.paired
        low, high = paired.difference.interval or (float("nan"),) * 2
        axes = [getattr(one.first, axis) for axis in AXES if axis != "seed"]
        about = [one.against, named(one.second, "seed"), one.metric, paired.seeds, *paired.means]
        lines.append([*axes, *about, paired.difference.value, low, high, paired.significant])
    return pd.DataFrame(lines, columns=list(COLUMNS))
