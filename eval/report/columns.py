"""Columns of the tables in summary.md: axes, titles of metrics, and values as text."""

from collections.abc import Sequence
from dataclasses import replace
from math import floor, log10

from tabulate import tabulate

from eval.analysis.configurations import Configuration
from eval.analysis.estimates import Estimate
from eval.report.words import marked
from eval.sweep.cells import AXES, Cell

WARNED = "†"


def table(columns: dict[str, list[str]]) -> str:
    return tabulate(columns, headers="keys", tablefmt="pipe", disable_numparse=True)


def axes_columns(rows: Sequence[Configuration], every: Sequence[Configuration]) -> dict[str, list[str]]:
    """The axes that tell all configurations apart, of some of them."""
    cells = [row.cell for row in rows]
    return {axis: [marked(getattr(cell, axis)) for cell in cells] for axis in axes_shown([one.cell for one in every])}


def axes_shown(cells: Sequence[Cell]) -> list[str]:
    """Method, sparsity, every axis in which two that are else alike differ, and the pattern if there are two."""

    def differ(axis: str) -> bool:
        return len({replace(cell, **{axis: ""}) for cell in cells}) < len(set(cells))

    several = len({cell.pattern for cell in cells if cell.amount > 0}) > 1
    shown = {"method", "sparsity", *(axis for axis in AXES if differ(axis)), *(["pattern"] if several else [])}
    return [axis for axis in AXES if axis in shown]


def measured_names(rows: Sequence[Configuration], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(name in record.metrics for row in rows for record in row)]


def title(rows: Sequence[Configuration], name: str) -> str:
    """`FID (evaluator features) ↓`, with a mark where a value of it has a warning."""
    found = [record.metrics[name] for row in rows for record in row if name in record.metrics]
    arrow = {True: " ↑", False: " ↓", None: ""}[found[0].higher_is_better]
    units = " or ".join(dict.fromkeys(metric.unit for metric in found))
    warned = f" {WARNED}" if any(metric.warning for metric in found) else ""
    return f"{found[0].title} ({units}){arrow}{warned}"


def formatted(value: float) -> str:
    """Four significant digits at most: 0.03125, 1.5, 1234."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def with_interval(found: Estimate, bold: bool = False, signed: bool = False) -> str:
    """`5.01 [4.62, 5.40]`: as many digits as leave two of the interval's half; the value alone where it has none."""
    sign = "+" if signed else ""
    low, high = found.interval or (found.value, found.value)
    if low == high:
        text, rest = f"{found.value:{sign}.4g}" if signed else formatted(found.value), ""
    else:
        form = f"{sign}z.{max(0, 1 - floor(log10((high - low) / 2)))}f"
        text, rest = f"{found.value:{form}}", f" [{low:{form}}, {high:{form}}]"
    return (f"**{text}**" if bold else text) + rest
