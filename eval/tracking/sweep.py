"""What a sweep's parent run says: metrics against sparsity, the best of each, and a description with links."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eval.analysis import shown
from eval.report.columns import formatted
from eval.report.tables import frame
from eval.results import CellResult
from eval.sweep.cells import AXES, decimal, named
from eval.tracking.content import of_a_cell
from eval.tracking.pages import SECTION, view_page, views
from eval.tracking.store import Point
from obsdiff.errors import SpecError

LONGEST_TAG = 8000
"""MLflow's limit, in characters"""


class Said(NamedTuple):
    """What a sweep's runs will be called, and its parent say, made before any of it is logged."""

    names: list[tuple[str, str]]
    """of each cell its path and its label"""
    points: list[Point]
    views: dict[str, str]


def said(records: Sequence[CellResult], paths: Sequence[Path]) -> Said:
    """Of the content of metrics.json files.

    Raises:
        SpecError: a value is not of a cell; the message names the file.
    """
    if not records:
        raise SpecError("metrics: no file is given; name the metrics.json files of the cells")
    try:
        return whole(records)
    except Exception:
        for record, path in zip(records, paths, strict=True):
            with of_a_cell(path):
                whole([record])
        raise


def whole(records: Sequence[CellResult]) -> Said:
    several = several_models(records)
    names = [(record.cell.path, name_of(record, several)) for record in records]
    return Said(names, list(summary(records)), views(records))


def several_models(records: Sequence[CellResult]) -> bool:
    return len({record.cell.model for record in records}) > 1


def name_of(record: CellResult, with_model: bool, *without: str) -> str:
    """The cell's label: eval.sweep.cells.named, after the model where the sweep has several."""
    called = named(record.cell, *without)
    return f"{record.cell.model} {called}" if with_model else called


def summary(records: Sequence[CellResult]) -> Iterator[Point]:
    """Metrics of a sweep whose step is the sparsity in percent, so that MLflow draws them against it.

    cells                      how many
    <metric>/<method, …>       of what the tables' lines are: all axes but sparsity and seed, averaged over seeds
    best/<metric>              of the pruned cells of that sparsity
    """
    yield "cells", float(len(records)), 0
    table, models = frame(records), several_models(records)
    about = {name: metric for record in records for name, metric in record.metrics.items()}
    table["line"] = [re.sub(r"[^\w./: -]", "-", name_of(r, models, "sparsity", "seed")) for r in records]
    table["percent"] = (100 * table["sparsity"]).round().astype(int)
    for name in (n for n in shown.measured() if n in table):
        lines = table.groupby(["line", "percent"], sort=False, as_index=False)[name].mean().dropna()
        for line, percent, value in zip(lines["line"], lines["percent"], lines[name], strict=True):
            yield f"{name}/{line}", float(value), int(percent)
        best = "max" if about[name].higher_is_better else "min"
        bests = table[table["sparsity"] > 0].groupby("percent", as_index=False)[name].agg(best).dropna()
        for percent, value in zip(bests["percent"], bests[name], strict=True):
            yield f"best/{name}", float(value), int(percent)


def description(records: Sequence[CellResult], experiment: str) -> str:
    """What was run, the best FID by sparsity, and links to charts of the cells of each sparsity, as Markdown."""
    table, models = frame(records), several_models(records)
    varied = {axis: [str(v) for v in dict.fromkeys(table[axis])] for axis in AXES}
    lines = [f"{len(records)} cells, {len(records[0].prompts)} images each.", ""]
    lines += [f"- {axis}: {', '.join(values)}" for axis, values in varied.items() if len(values) > 1 or axis == "model"]
    lines += ["", "| sparsity | | lowest FID | |", "|:--|:--|--:|:--|"]
    for sparsity in sorted(set(table["sparsity"])):
        rows = [r for r in records if r.cell.amount == sparsity and "fid" in r.metrics]
        if rows:
            best = min(rows, key=lambda r: r.metrics["fid"].value)
            link = view_page(experiment, f"{SECTION}-{decimal(sparsity)}")
            lines.append(
                f"| {sparsity:g} | {name_of(best, models)} | {formatted(best.metrics['fid'].value)} "
                f"| [chart by method]({link}) |"
            )
    lines += ["", "Metrics of this run are drawn against sparsity in percent (the step): `fid/…`, `best/fid`."]
    return "\n".join(lines)[:LONGEST_TAG]
