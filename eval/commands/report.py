"""`python -m eval report`."""

from pathlib import Path
from typing import Literal

from eval.analysis.analysis import Analysis
from eval.report.page import write_report
from eval.report.tables import read_cells
from eval.sweep.cells import listed
from obsdiff.storage.files import read_json


def run(
    metrics: list[Path],
    tables: Path,
    sweep: str,
    out: Path,
    others: tuple[Path, ...] = (),
    scale: Literal["full", "tiny"] = "full",
    store: Path | None = None,
) -> None:
    """Bind a summarised sweep into one HTML page that needs nothing beside it.

    Args:
        metrics: the cells' metrics.json files in the order of the rows, or a .txt file that lists them.
        tables: folder of summary.md and figures/.
        sweep: the sweep's name.
        out: the page.
        others: summary.md files of other sweeps, shown as ablations.
        scale: what the cells are of.
        store: record of MLflow's store, written by the command of that name; cells link to their runs on a server.
    """
    metrics = listed(metrics)
    runs = str(read_json(store).get("runs", "")) if store else ""
    write_report(Analysis(read_cells(metrics)), metrics, tables, sweep, out, others, scale, runs)
