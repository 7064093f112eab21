"""Metrics of a configuration over its seeds, and paired differences of two, with 95 % intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval import resampling
from eval.cells import Cell, cell_path, parse
from obsdiff.errors import SpecError

Record = dict[str, Any]
"""of a metrics.json"""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; the interval is over prompts and seeds, None where the metric has no number a prompt."""

    value: float
    interval: tuple[float, float] | None

    @property
    def excludes_zero(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def by_configuration(records: Sequence[Record]) -> dict[Cell, list[Record]]:
    """Cells that differ in their seed alone, by the cell without a seed, in the order of the first; seeds sorted."""
    found: dict[Cell, list[Record]] = {}
    for record in records:
        found.setdefault(replace(parse(cell_path(record)), seed=""), []).append(record)
    return {cell: sorted(group, key=lambda r: int(r["cell"]["seed"])) for cell, group in found.items()}


def replicates(records: Sequence[Record], name: str) -> NDArray[np.float64] | None:
    """Replicates of a metric's mean over seeds, (REPLICATES,); None where it has none."""
    found = []
    for record in records:
        metric = record["metrics"][name]
        if "replicates" in metric:
            found.append(np.asarray(metric["replicates"], dtype=float))
        elif "samples" in metric:
            found.append(resampling.means(metric["samples"]))
        else:
            return None
    return resampling.over_seeds(found)


def value(records: Sequence[Record], name: str) -> float:
    return float(np.mean([record["metrics"][name]["value"] for record in records]))


def estimate(records: Sequence[Record], name: str) -> Estimate | None:
    """A metric over the seeds of one configuration; None where a seed has not measured it."""
    if not all(name in record["metrics"] for record in records):
        return None
    mean, found = value(records, name), replicates(records, name)
    return Estimate(mean, None if found is None else resampling.interval(mean, found))


def difference(first: Sequence[Record], second: Sequence[Record], name: str) -> Estimate | None:
    """first − second, paired by prompt and seed; None where either has not measured it.

    Args:
        first, second: records of one configuration each, seed by seed.

    Raises:
        SpecError: seeds or prompts are not the same.
    """
    check_pairs(first, second)
    if not all(name in record["metrics"] for record in (*first, *second)):
        return None
    mean = value(first, name) - value(second, name)
    a, b = replicates(first, name), replicates(second, name)
    return Estimate(mean, None if a is None or b is None else resampling.interval(mean, a - b))


def check_pairs(first: Sequence[Record], second: Sequence[Record]) -> None:
    if len(first) != len(second):
        raise SpecError(f"seeds: {len(first)} cells against {len(second)}; give equally many")
    for a, b in zip(first, second, strict=True):
        if a["prompts"] != b["prompts"] or a["cell"]["seed"] != b["cell"]["seed"]:
            raise SpecError("cells: the two do not pair up; give the same prompts and seeds in the same order")
