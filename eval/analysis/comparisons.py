"""Which configurations a metric tells apart: from the best, OBS-Diff, the dense model, and their method unchanged."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from eval.analysis import shown
from eval.analysis.configurations import Configuration, Configurations, Paired
from eval.sweep.cells import AXES, PLAIN

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

    first: Configuration
    second: Configuration
    against: Against
    metric: str
    paired: Paired


def groups(configurations: Iterable[Configuration]) -> list[list[Configuration]]:
    """Pruned configurations that share model, pattern, sparsity and sampling."""
    found: dict[tuple[str, ...], list[Configuration]] = {}
    for one in configurations:
        if one.cell.amount > 0:
            found.setdefault(tuple(getattr(one.cell, axis) for axis in GROUP), []).append(one)
    return list(found.values())


def best_of(group: Sequence[Configuration], name: str) -> Configuration | None:
    """The best mean over seeds; None of fewer than two that have measured it, and where no direction is better."""
    known = [(one.estimates[name].value, one) for one in group if name in one.estimates]
    if len(known) < 2:
        return None
    higher = known[0][1][0].metrics[name].higher_is_better
    if higher is None:
        return None
    return (max if higher else min)(known, key=lambda each: each[0])[1]


def base_of(group: Sequence[Configuration]) -> Configuration | None:
    """The first OBS-Diff configuration, else that of the best FID."""
    own = next((one for one in group if one.cell.method == BASE), None)
    return own or best_of(group, "fid")


def comparisons(configurations: Configurations) -> list[Comparison]:
    """Every pruned configuration against the best and the base of its group, and its plain one where that is another.

    In quality also against its dense model.

    Those are left out whose difference has no interval, or that share no seed.
    """
    return [
        Comparison(first, second, against, name, found)
        for group in groups(configurations.values())
        for name in shown.measured()
        for first, second, against in pairs_of(group, configurations, name)
        if (found := first.minus(second, name)) is not None
    ]


def pairs_of(
    group: Sequence[Configuration], configurations: Configurations, name: str
) -> Iterator[tuple[Configuration, Configuration, Against]]:
    best, base = best_of(group, name), base_of(group)
    for one in group:
        plain = configurations.get(replace(one.cell, options=PLAIN, calibration=PLAIN))
        if plain is not None and plain not in (one, base):
            yield one, plain, "plain"
        if best not in (one, None):
            yield one, best, "best"
        if base not in (one, None):
            yield one, base, "base"
        dense = configurations.get(one.cell.dense())
        if dense is not None and name in shown.names("quality"):
            yield one, dense, "dense"


def tidy(found: Sequence[Comparison]) -> pd.DataFrame:
    """One line per comparison, COLUMNS: the first's axes, what the second is, its label, and the rest.

    `distinguishable` says whether the interval leaves out 0.
    """
    lines = []
    for one in found:
        paired = one.paired
        low, high = paired.difference.interval or (float("nan"),) * 2
        axes = [getattr(one.first.cell, axis) for axis in AXES if axis != "seed"]
        about = [one.against, one.second.name, one.metric, paired.seeds, *paired.means]
        lines.append([*axes, *about, paired.difference.value, low, high, paired.significant])
    return pd.DataFrame(lines, columns=list(COLUMNS))
