"""metrics.json files → results/summary.csv, summary.md and differences.csv: one row per configuration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from eval.analysis.analysis import Analysis
from eval.analysis.comparisons import tidy
from eval.analysis.configurations import Configurations
from eval.analysis.timings import stands_with_dense
from eval.report.findings import sentences
from eval.report.summary_page import markdown
from eval.report.words import marked
from eval.results import CellResult
from eval.sweep.cells import axes_of
from eval.sweep.clocked import CELL, DENSE
from obsdiff.storage.files import write_text


def read_cells(paths: Sequence[Path]) -> list[CellResult]:
    """metrics.json files; SpecError, by name, where one is missing, damaged or not of a cell."""
    return [CellResult.read(path) for path in paths]


def frame(cells: Sequence[CellResult]) -> pd.DataFrame:
    """One row per cell: the axes, then every metric, then the quartiles of what is timed.

    A metric that a cell has no number of is NaN, such as a time of one that stands with the dense model.
    """
    rows = []
    for cell in cells:
        row = axes_of(cell.cell) | {k: m.value for k, m in cell.metrics.items()}
        for name, metric in cell.metrics.items():
            if metric.quartiles:
                row[f"{name}_q1"], row[f"{name}_q3"] = metric.quartiles
        rows.append(row)
    return pd.DataFrame(rows)


def summary(configurations: Configurations) -> pd.DataFrame:
    """One row per configuration: the axes but the seed, how many seeds and images of each, then every metric.

    A metric is its mean over seeds, with `_low` and `_high` where it has an interval, or `_q1` and `_q3`, means too.
    `timed_as` is `dense` where times and speed-ups are the dense model's, whose row has them, and left empty here.
    """
    rows = []
    for records in configurations.values():
        first = records[0]
        row = {axis: value for axis, value in axes_of(first.cell).items() if axis != "seed"}
        row |= {"seeds": len(records), "pictures": len(first.prompts)}
        row |= {"timed_as": DENSE if all(map(stands_with_dense, records)) else CELL}
        for name, found in records.estimates.items():
            row[name] = found.value
            if found.interval is not None:
                row[f"{name}_low"], row[f"{name}_high"] = found.interval
            quartiles = [q for record in records if (q := record.metrics[name].quartiles)]
            if len(quartiles) == len(records):
                row[f"{name}_q1"], row[f"{name}_q3"] = (float(q) for q in np.mean(quartiles, axis=0))
        rows.append(row)
    return pd.DataFrame(rows)


def write_tables(analysis: Analysis, out: Path) -> None:
    """Write summary.csv, summary.md and differences.csv of finished cells.

    Args:
        out: folder, made if missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary(analysis.configurations).to_csv(out / "summary.csv", index=False)
    tidy(analysis.comparisons).to_csv(out / "differences.csv", index=False)
    answers = [f"**{marked(setting.name)}.** {marked(' '.join(sentences(setting)))}" for setting in analysis.settings]
    write_text(out / "summary.md", markdown(analysis, answers))
