"""Two cells side by side, however they are named: what `python -m eval compare` prints."""

from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from eval.analysis.estimates import measured, values
from eval.analysis.groups import about as metric_of
from eval.analysis.timings import AS_DENSE, as_dense
from eval.report.columns import formatted
from eval.report.compare import compare
from eval.results import CellResult, Metric
from eval.sweep.cells import named
from eval.sweep.clocked import clocked_names


def described(first: Sequence[CellResult], second: Sequence[CellResult]) -> str:
    """A table of all metrics that both have: values, paired difference, its interval, and whether that excludes 0.

    A time of the one that the other takes *as dense* is there too, without a difference.

    Args:
        first, second: equally many records, seed by seed.

    Raises:
        SpecError: the two are not of the same prompts and seeds.
    """
    found = compare(first, second)
    rows = []
    for row in found.to_dict("records"):
        about = first[0].metrics[str(row["metric"])]
        known = pd.notna(row["low"]) and pd.notna(row["high"])
        numbers = [row["first"], row["second"], row["difference"]]
        ends = f"{formatted(row['low'])} to {formatted(row['high'])}" if known else ""
        rows.append([f"{about.title} ({about.unit})", *map(formatted, numbers), ends, verdict(row, about, known)])
    rows += timed_rows(first, second)
    head = ["metric", "first", "second", "first − second", "95 % interval", "significantly different"]
    sides = (("first", first), ("second", second))
    lines = [f"{which:<8}{', '.join(name_of(record) for record in records)}" for which, records in sides]
    return "\n".join([*lines, "", tabulate(rows, head, disable_numparse=True, stralign="left")])


def timed_rows(first: Sequence[CellResult], second: Sequence[CellResult]) -> list[list[str]]:
    """Times of which one side has a number and the other is as the dense model, or both are."""
    rows = []
    if any(as_dense(records, name) for records in (first, second) for name in clocked_names()):
        for name in sorted(clocked_names()):
            each = [values(records, name) if measured(records, name) else None for records in (first, second)]
            about = metric_of((*first, *second), name)
            if about and any(m is None for m in each):
                texts = [AS_DENSE if m is None else formatted(float(m.mean())) for m in each]
                rows.append([f"{about.title} ({about.unit})", *texts, "", "", ""])
        if not rows:
            rows.append(["times and speed-ups", AS_DENSE, AS_DENSE, "", "", ""])
    return rows


def verdict(row: dict, about: Metric, known: bool) -> str:
    """`yes, better` of the first, where the metric has a direction; `no`; nothing where there is no interval."""
    if not known:
        return ""
    if row["low"] <= 0 <= row["high"]:
        return "no"
    better = about.higher_is_better
    return "yes" if better is None else f"yes, {'better' if (row['difference'] > 0) == better else 'worse'}"


def name_of(record: CellResult) -> str:
    return f"{record.cell.model} {named(record.cell)}"
