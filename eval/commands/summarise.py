"""`python -m eval summarise`."""

from pathlib import Path

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
    cells = read_cells(metrics)
    write_tables(cells, out)
    write_figures(cells, [path.parent for path in metrics], out / "figures")
