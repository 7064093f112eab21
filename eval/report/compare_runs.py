"""Two cells side by side, however they are named: what `obsdiff compare` prints."""

import json
import re
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from eval.analysis.estimates import Record
from eval.report.columns import formatted
from eval.report.compare import compare
from eval.sweep.cells import cell_path, named, parse
from eval.sweep.clocked import AS_DENSE, as_dense, clocked_names
from obsdiff.errors import SpecError

RUN_ID = "[0-9a-f]{32}"
RESULTS = Path("results")


def read_run(run: str, results: Path = RESULTS) -> Record:
    """The metrics.json of a cell.

    Args:
        run: the cell's folder, its metrics.json, or the id of its MLflow run, in MLFLOW_TRACKING_URI.
        results: whose mlflow.db is looked in where that is not set.

    Raises:
        SpecError: there is none.
    """
    path = Path(run)
    file = path / "metrics.json" if path.is_dir() else path
    if file.is_file():
        try:
            record: Record = json.loads(file.read_text())
            return {key: record[key] for key in ("cell", "prompts", "metrics")} | record
        except (ValueError, KeyError, TypeError) as error:
            raise SpecError(f"run: {str(file)!r} is no metrics.json of a cell ({error!r}); measure it again") from None
    if re.fullmatch(RUN_ID, run):
        from eval.tracking.store import record_of

        return record_of(run, results)
    what = f"{str(file)!r} is not a file" if path.is_dir() else f"{run!r} is no file, folder or run id"
    raise SpecError(f"run: {what}; give a cell's folder, its metrics.json, or the id of its MLflow run (32 digits)")


def described(first: Record, second: Record) -> str:
    """A table of all metrics that both have: values, paired difference, its interval, and whether that excludes 0.

    A time of the one that the other takes *as dense* is there too, without a difference.

    Raises:
        SpecError: the two are not of the same prompts and seed.
    """
    found = compare([first], [second])
    rows = []
    for row in found.to_dict("records"):
        name = str(row["metric"])
        about = first["metrics"][name]
        known = pd.notna(row["low"]) and pd.notna(row["high"])
        values = [about["value"], second["metrics"][name]["value"], row["difference"]]
        ends = f"{formatted(row['low'])} to {formatted(row['high'])}" if known else ""
        rows.append([f"{about['title']} ({about['unit']})", *map(formatted, values), ends, verdict(row, about, known)])
    rows += clocked_rows(first, second)
    head = ["metric", "first", "second", "first − second", "95 % interval", "told from 0"]
    lines = [f"{which:<8}{name_of(record)}" for which, record in (("first", first), ("second", second))]
    return "\n".join([*lines, "", tabulate(rows, head, disable_numparse=True, stralign="left")])


def clocked_rows(first: Record, second: Record) -> list[list[str]]:
    """Metrics of a clock of which one of the two has a number and the other stands with the dense model, or both do."""
    both, rows = (first, second), []
    if any(as_dense([record], name) for record in both for name in clocked_names()):
        for name in sorted(clocked_names()):
            about = next((r["metrics"][name] for r in both if name in r["metrics"]), None)
            if about and not all(name in r["metrics"] for r in both):
                texts = [formatted(r["metrics"][name]["value"]) if name in r["metrics"] else AS_DENSE for r in both]
                rows.append([f"{about['title']} ({about['unit']})", *texts, "", "", ""])
        if not rows:
            rows.append(["times and speed-ups", AS_DENSE, AS_DENSE, "", "", ""])
    return rows


def verdict(row: dict, about: dict, known: bool) -> str:
    """`yes, better` of the first, where the metric has a direction; `no`; nothing where there is no interval."""
    if not known:
        return ""
    if row["low"] <= 0 <= row["high"]:
        return "no"
    better = about["higher_is_better"]
    return "yes" if better is None else f"yes, {'better' if (row['difference'] > 0) == better else 'worse'}"


def name_of(record: Record) -> str:
    cell = parse(cell_path(record))
    return f"{cell.model} {named(cell)}"
