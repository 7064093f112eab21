"""`python -m eval summarise`."""

from pathlib import Path

from eval.analysis.analysis import Analysis
from eval.figures import write_figures
from eval.report.tables import read_cells, write_tables
from eval.sweep.cells import listed


def run(metrics: list[Path], out: Path) -> None:
    """Tables and figures of finished cells.

    Args:
        metrics: their metrics.json files in the order of the rows, or a .txt file that lists them.
        out: folder of summary.csv, summary.md, differences.csv and figures/.
    """
    metrics = listed(metrics)
    analysis = Analysis(read_cells(metrics))
    write_tables(analysis, out)
    write_figures(analysis, [path.parent for path in metrics], out / "figures")
