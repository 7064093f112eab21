"""Metrics of a cell's model. A metric is one file; its stem is the column of the tables."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from obsdiff import registry

Value = tuple[float, tuple[float, float] | None]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the suite must know of a metric without importing it.

    Attributes:
        title, unit: for people.
        higher_is_better: its direction; None if neither is better as such.
        timed: whether it is a reading of a clock or of memory, which no two runs share to the digit.
        clocked: whether it comes from a cell's own timings, which not every cell has.
        table: of summary.md that has a column of it; summary.csv has all.
        order: of that column.
    """

    title: str
    unit: str
    higher_is_better: bool | None
    timed: bool = False
    clocked: bool = False
    table: Literal["", "similarity", "cost"] = ""
    order: int = 100


@dataclass(frozen=True)
class Model:
    """What model metrics see.

    Attributes:
        checkpoint: the pruned checkpoint's manifest.
        profile: record of `python -m eval profile`: layer errors, parameters, bytes, FLOPs, memory.
        latency: record of `python -m eval latency`; empty of a cell that is not timed.
    """

    checkpoint: dict[str, Any]
    profile: dict[str, Any]
    latency: dict[str, Any] = field(default_factory=dict)


class ModelMetric(Protocol):
    """A file of this folder."""

    def compute(self, model: Model) -> Value:
        """The value, and its quartiles if it was timed."""


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)
