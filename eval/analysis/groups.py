"""Configurations as figures and findings show them: by setting, with a line per method and other difference."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from eval.analysis.configurations import Configuration, Configurations
from eval.results import CellResult, Metric
from eval.sweep.cells import PLAIN, Cell, chosen

FLOOR = "random"
"""the method that is below all others, and would flatten their differences on a common axis"""


@dataclass
class Setting:
    """Configurations that compare: of one model, pattern and sampling.

    Attributes:
        dense: the dense model's; empty where the sweep has none.
        lines: label → sparsity → configuration, sparsities ascending.
    """

    model: str
    pattern: str
    sampling: str
    dense: Configuration = field(default_factory=lambda: Configuration([]))
    lines: dict[str, dict[float, Configuration]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ", ".join(part for part in (self.model, self.pattern, self.sampling) if part != PLAIN)

    @property
    def sparsities(self) -> list[float]:
        return sorted({s for line in self.lines.values() for s in line})

    @property
    def pruned(self) -> list[tuple[str, float, Configuration]]:
        """Label, sparsity and configuration of all that is pruned."""
        return [(label, s, group) for label, line in self.lines.items() for s, group in line.items()]

    def at(self, sparsity: float) -> dict[str, Configuration]:
        """Label → configuration of one sparsity."""
        return {label: line[sparsity] for label, line in self.lines.items() if sparsity in line}


def settings(groups: Configurations) -> list[Setting]:
    """All settings in the order of their first pruned cell; a sweep of dense cells alone has one a model."""
    dense = {(cell.model, cell.sampling): group for cell, group in groups.items() if cell.method == "dense"}
    pruned = {cell: group for cell, group in groups.items() if cell.method != "dense"}
    apart = ["sparsity", "pattern", "sampling", *constant(pruned)]
    found: dict[tuple[str, str, str], Setting] = {}
    for cell in pruned or groups:
        key = (cell.model, cell.pattern, cell.sampling)
        setting = found.setdefault(key, Setting(*key))
        setting.dense = dense.get((cell.model, cell.sampling), setting.dense)
        if cell in pruned:
            setting.lines.setdefault(pruned[cell].label(*apart), {})[cell.amount] = pruned[cell]
    for setting in found.values():
        setting.lines = {label: dict(sorted(line.items())) for label, line in setting.lines.items()}
    return list(found.values())


def constant(cells: Iterable[Cell]) -> list[str]:
    """The weighting, and the packages, where all methods that have them have the same: no label needs to say it."""
    axes = ("weighting", "packages")
    listed = list(cells)
    used = {axis: {getattr(cell, axis) for cell in listed if chosen(cell, axis)} for axis in axes}
    return [axis for axis in axes if len(used[axis]) < 2]


class Point(NamedTuple):
    """A value with what a bar may span."""

    value: float
    low: float
    high: float


def point(group: Configuration, name: str) -> Point | None:
    """A metric of a configuration; its 95 % interval, else the widest quartiles, else no bar; None if not measured."""
    found = group.estimates.get(name)
    if found is None:
        return None
    low, high = found.interval or (found.value, found.value)
    quartiles = [q for r in group if (q := r.metrics[name].quartiles) is not None]
    if found.interval is None and quartiles:
        low, high = min(q[0] for q in quartiles), max(q[1] for q in quartiles)
    return Point(found.value, min(low, found.value), max(high, found.value))


def about(records: Iterable[CellResult], name: str) -> Metric | None:
    """A metric of the first cell that has measured it, for its title, unit and direction; None if none has."""
    return next((record.metrics[name] for record in records if name in record.metrics), None)
