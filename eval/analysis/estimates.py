"""Metrics of a configuration over its seeds, and paired differences of two, with 95 % intervals.

With one seed the interval is over prompts alone. A metric that has no number per prompt (layer error) has Student's
interval over seeds, two or more; readings of a clock have quartiles instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from eval import bootstrap as resampling
from eval.analysis.shown import is_share
from eval.results import CellResult
from obsdiff.errors import SpecError


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; the interval is over prompts and seeds, None where there is nothing to tell it from."""

    value: float
    interval: tuple[float, float] | None

    @property
    def excludes_zero(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def replicates(records: Sequence[CellResult], name: str) -> NDArray[np.float64] | None:
    """Replicates of a metric's mean over seeds, (REPLICATES,); None where it has none."""
    found = []
    for record in records:
        metric = record.metrics[name]
        if metric.replicates is not None:
            found.append(np.asarray(metric.replicates, dtype=float))
        elif metric.samples is not None:
            found.append(resampling.means(metric.samples))
        else:
            return None
    return resampling.over_seeds(found)


def values(records: Sequence[CellResult], name: str) -> NDArray[np.float64]:
    """A metric of every seed, (seeds,)."""
    return np.array([record.metrics[name].value for record in records], dtype=float)


def students(numbers: NDArray[np.float64]) -> tuple[float, float] | None:
    """The interval of the mean of one number per seed by Student's t; None of one number."""
    if len(numbers) < 2:
        return None
    half = stats.t.ppf((1 + resampling.CONFIDENCE) / 2, len(numbers) - 1) * stats.sem(numbers)
    return float(numbers.mean() - half), float(numbers.mean() + half)


def measured(records: Sequence[CellResult], name: str) -> bool:
    return all(name in record.metrics for record in records)


def clocked(records: Sequence[CellResult], name: str) -> bool:
    return any(record.metrics[name].quartiles is not None for record in records)


def estimate(records: Sequence[CellResult], name: str) -> Estimate | None:
    """A metric over the seeds of one configuration; None where a seed has not measured it."""
    if not measured(records, name):
        return None
    each, found = values(records, name), replicates(records, name)
    mean = float(each.mean())
    if found is None:
        return Estimate(mean, None if clocked(records, name) else students(each))
    if not is_share(name):
        return Estimate(mean, resampling.interval(mean, found))
    low, high = resampling.interval(mean, found + resampling.one_each_way(len(records[0].prompts)))
    return Estimate(mean, (max(low, 0.0), min(high, 100.0)))


def difference(first: Sequence[CellResult], second: Sequence[CellResult], name: str) -> Estimate | None:
    """first − second, paired by prompt and seed; None where either has not measured it.

    Args:
        first, second: records of one configuration each, seed by seed.

    Raises:
        SpecError: seeds or prompts are not the same.
    """
    check_pairs(first, second)
    both = (*first, *second)
    if not measured(both, name):
        return None
    each = values(first, name) - values(second, name)
    mean = float(each.mean())
    a, b = replicates(first, name), replicates(second, name)
    if a is None or b is None:
        return Estimate(mean, None if clocked(both, name) else students(each))
    apart = a - b
    if is_share(name):
        apart = apart + resampling.one_each_way(len(first[0].prompts))
    return Estimate(mean, resampling.interval(mean, apart))


def paired(first: Sequence[CellResult], second: Sequence[CellResult]) -> tuple[list[CellResult], list[CellResult]]:
    """The records of the seeds that both configurations have, in one order."""
    one, other = ({record.cell.seed: record for record in records} for records in (first, second))
    shared = [seed for seed in one if seed in other]
    return [one[seed] for seed in shared], [other[seed] for seed in shared]


def check_pairs(first: Sequence[CellResult], second: Sequence[CellResult]) -> None:
    if len(first) != len(second):
        raise SpecError(f"seeds: {len(first)} cells against {len(second)}; give equally many")
    for a, b in zip(first, second, strict=True):
        if a.prompts != b.prompts or a.cell.seed != b.cell.seed:
            raise SpecError("cells: the two do not pair up; give the same prompts and seeds in the same order")
