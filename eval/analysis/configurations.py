"""One configuration's records, its estimates, and its paired differences to others, each computed once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

from eval.analysis import estimates
from eval.analysis.estimates import Estimate
from eval.results import CellResult
from eval.sweep.cells import Cell, named


@dataclass(frozen=True)
class Paired:
    """One configuration minus another in a metric, over the seeds that both have.

    Attributes:
        means: of both over those seeds.
        difference: it has an interval.
    """

    seeds: int
    means: tuple[float, float]
    difference: Estimate

    @property
    def significant(self) -> bool:
        return self.difference.excludes_zero


class Configuration(Sequence[CellResult]):
    """The records of one configuration, a seed each, in the order of their seeds."""

    def __init__(self, records: Sequence[CellResult]) -> None:
        self.records = list(records)
        self.paired: dict[tuple[Configuration, str], Paired | None] = {}

    @overload
    def __getitem__(self, place: int) -> CellResult: ...
    @overload
    def __getitem__(self, place: slice) -> list[CellResult]: ...
    def __getitem__(self, place: int | slice) -> CellResult | list[CellResult]:
        return self.records[place]

    @cached_property
    def cell(self) -> Cell:
        """The axes; of the seed nothing."""
        return replace(self.records[0].cell, seed="")

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every metric that all seeds have measured, over the seeds."""
        names = self.records[0].metrics if self.records else ()
        found = ((name, estimates.estimate(self.records, name)) for name in names)
        return {name: one for name, one in found if one is not None}

    @cached_property
    def name(self) -> str:
        """The axes that say something, but the seed; see cells.named()."""
        return self.label()

    def label(self, *without: str) -> str:
        """The name without the axes given."""
        return named(self.cell, "seed", *without)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[CellResult]:
        return iter(self.records)

    def minus(self, other: "Configuration", name: str) -> Paired | None:
        """The paired difference; None where nothing pairs or it has no interval."""
        key = (other, name)
        if key not in self.paired:
            self.paired[key] = self.subtracted(other, name)
        return self.paired[key]

    def subtracted(self, other: "Configuration", name: str) -> Paired | None:
        one, two = estimates.paired(self.records, other.records)
        if not one or any(a.prompts != b.prompts for a, b in zip(one, two, strict=True)):
            return None
        found = estimates.difference(one, two, name)
        if found is None or found.interval is None:
            return None
        first, second = (float(estimates.values(records, name).mean()) for records in (one, two))
        return Paired(len(one), (first, second), found)


Configurations = dict[Cell, Configuration]
"""by the cell without its seed, in the order of the first of each"""


def by_configuration(records: Sequence[CellResult]) -> Configurations:
    found: dict[Cell, list[CellResult]] = {}
    for record in records:
        found.setdefault(replace(record.cell, seed=""), []).append(record)
    return {cell: Configuration(sorted(group, key=lambda r: int(r.cell.seed))) for cell, group in found.items()}
