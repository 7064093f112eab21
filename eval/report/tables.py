"""metrics.json files → results/summary.csv, summary.md and differences.csv: one row a configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.analysis.analysis import Analysis
from eval.analysis.comparisons import tidy
from eval.analysis.configurations import Configurations
from eval.report.findings import sentences
from eval.report.summary_page import markdown
from eval.report.words import marked
from eval.sweep.cells import AXES
from eval.sweep.clocked import CELL, DENSE, stands_with_dense
from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile, read_json, write_text

Cell = dict[str, Any]
KEYS: dict[str, type] = {"cell": dict, "metrics": dict, "prompts": list, "captions": list, "provenance": dict}
"""what every metrics.json has"""


def read_cells(paths: Sequence[Path]) -> list[Cell]:
    """metrics.json files; SpecError, by name, where one is missing, damaged or not of a cell."""
    return [read_cell(path) for path in paths]


def read_cell(path: Path) -> Cell:
    again = "remove it and measure the cell again"
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise SpecError(f"metrics: {str(path)!r} is not a file; measure the cell first") from None
    except (OSError, DamagedFile) as error:
        raise SpecError(f"metrics: {error}; {again}") from None
    missing = [key for key in KEYS if not isinstance(record, dict) or not isinstance(record.get(key), KEYS[key])]
    if not missing:
        missing = [f"cell.{axis}" for axis in AXES if axis not in record["cell"]]
        missing += [f"metrics.{k}" for k, m in record["metrics"].items() if not isinstance(m, dict) or "value" not in m]
    if missing:
        raise SpecError(f"metrics: {str(path)!r} is not of a cell, it has no {missing[0]}; {again}")
    found: Cell = record
    return found


def frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row a cell: the axes, then every metric, then the quartiles of what is timed.

    A metric that a cell has no number of is NaN, such as a time of one that stands with the dense model.
    """
    rows = []
    for cell in cells:
        row = {axis: cell["cell"][axis] for axis in AXES} | {k: m["value"] for k, m in cell["metrics"].items()}
        for name, metric in cell["metrics"].items():
            if "quartiles" in metric:
                row[f"{name}_q1"], row[f"{name}_q3"] = metric["quartiles"]
        rows.append(row)
    return pd.DataFrame(rows)


def summary(configurations: Configurations) -> pd.DataFrame:
    """One row a configuration: the axes but the seed, how many seeds and pictures of each, then every metric.

    A metric is its mean over seeds, with `_low` and `_high` where it has an interval, or `_q1` and `_q3`, means too.
    `timed_as` is `dense` where times and speed-ups are the dense model's, whose row has them, and left empty here.
    """
    rows = []
    for records in configurations.values():
        first = records[0]
        row = {axis: first["cell"][axis] for axis in AXES if axis != "seed"}
        row |= {"seeds": len(records), "pictures": len(first["prompts"])}
        row |= {"timed_as": DENSE if all(map(stands_with_dense, records)) else CELL}
        for name in first["metrics"]:
            found = records.estimate(name)
            if found is None:
                continue
            row[name] = found.value
            if found.interval is not None:
                row[f"{name}_low"], row[f"{name}_high"] = found.interval
            quartiles = [record["metrics"][name].get("quartiles") for record in records]
            if None not in quartiles:
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
