"""Whether our numbers say what the paper's do: each row against its dense row on both sides, and the paper's claims.

Absolute values depend on the reference images, the features and the prompts, so the effect of pruning is compared: the
difference to the dense model. The paper states no intervals; ours are paired, over prompts and seeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.analysis.estimates import Estimate, difference, paired
from eval.report.paper_rows import COLUMNS, Row
from eval.sweep.cells import PLAIN

TOLERANCE = 0.1
"""by which share of the paper's effect ours may differ from it beyond our interval"""
REPRODUCED, REFUTED, OPEN = "reproduced", "not reproduced", "cannot be decided"
HOLDS, FAILS = "holds", "does not hold"
OWN = {"method": "obs_diff", "weighting": "log_decrease", "packages": "4", "calibration": PLAIN}
"""axis → the paper's choice, which it compares with others"""


@dataclass(frozen=True)
class Effect:
    """A row minus the dense row of its model and sampling, in one metric.

    Attributes:
        paper: None where the paper has no such dense row.
        ours: None where we have not measured both.
    """

    paper: float | None
    ours: Estimate | None

    @property
    def verdict(self) -> str:
        """'' where there is nothing to compare."""
        if self.paper is None or self.ours is None:
            return ""
        if self.ours.interval is None:
            return OPEN
        low, high = self.ours.interval
        slack = TOLERANCE * abs(self.paper)
        if not low - slack <= self.paper <= high + slack:
            return REFUTED
        return OPEN if low <= 0 <= high and abs(self.paper) > slack else REPRODUCED


@dataclass(frozen=True)
class Claim:
    """That one row of the paper is better than another that differs in one axis, in one metric.

    Attributes:
        where: what both have in common.
        better, worse: the axis's values, in the paper's order.
        paper: the better row minus the worse one.
        ours: the same of ours; None where not measured.
    """

    where: str
    metric: str
    better: str
    worse: str
    paper: float
    ours: Estimate | None

    @property
    def verdict(self) -> str:
        if self.ours is None or not self.ours.excludes_zero:
            return OPEN
        return HOLDS if (self.ours.value > 0) == (self.paper > 0) else FAILS


def effect(row: Row, rows: Sequence[Row], name: str) -> Effect | None:
    """Of a row that is not dense itself; None of a metric that no verdict is about."""
    if COLUMNS[name].higher_is_better is None or row.axes.get("method") == "dense":
        return None
    of_model = [r for r in rows if r.axes.get("method") == "dense" and r.axes.get("model") == row.axes.get("model")]
    sampling = row.axes.get("sampling", PLAIN)
    dense = next((r for r in of_model if r.axes.get("sampling", PLAIN) == sampling), None)
    if dense is None:
        return Effect(None, None)
    known = name in row.paper and name in dense.paper
    return Effect(row.paper[name] - dense.paper[name] if known else None, minus(row, dense, name))


def minus(first: Row, second: Row, name: str) -> Estimate | None:
    """Our difference over the seeds that both have; None where there are none, or one has not measured the metric."""
    ours = COLUMNS[name].ours
    if found := first.cells.minus(second.cells, ours):
        return found.difference
    one, other = paired(first.cells.records, second.cells.records)
    return difference(one, other, ours) if one else None


def claims(rows: Sequence[Row]) -> Iterator[Claim]:
    """The paper's own choice (OWN) against each other value of the axis, in each metric that both rows have."""
    stated = [row for row in rows if row.paper and row.axes.get("method") != "dense"]
    for axis, choice in OWN.items():
        for first in (row for row in stated if row.axes.get(axis) == choice):
            rest = {key: text for key, text in first.axes.items() if key != axis}
            others = [row for row in stated if {k: v for k, v in row.axes.items() if k != axis} == rest]
            for second in (row for row in others if row.axes.get(axis, choice) != choice):
                yield from compared(first, second, axis, ", ".join(v for v in rest.values() if v != PLAIN))


def compared(first: Row, second: Row, axis: str, where: str) -> Iterator[Claim]:
    for name in first.paper:
        higher = COLUMNS[name].higher_is_better
        if higher is None or name not in second.paper or first.paper[name] == second.paper[name]:
            continue
        ahead = (first.paper[name] > second.paper[name]) == higher
        better, worse = (first, second) if ahead else (second, first)
        one, other = (f"{axis} {r.axes[axis]}" if axis != "method" else r.axes[axis] for r in (better, worse))
        yield Claim(where, name, one, other, better.paper[name] - worse.paper[name], minus(better, worse, name))
