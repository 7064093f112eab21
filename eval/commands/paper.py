"""`python -m eval paper`."""

from pathlib import Path
from typing import Literal

from eval.report.paper import write_paper
from eval.report.tables import read_cells
from eval.sweep.cells import listed


def run(
    metrics: list[Path],
    table: int,
    out: Path,
    scale: Literal["full", "tiny"] = "full",
    values: Path = Path("config/paper/values.csv"),
) -> None:
    """A table of the paper with its numbers and those of finished cells side by side.

    Args:
        metrics: the cells' metrics.json files in the order of the rows, or a .txt file that lists them.
        table: its number.
        out: folder of paper.md, paper.csv and paper.tex.
        scale: what the cells are of.
        values: the paper's numbers.
    """
    write_paper(read_cells(listed(metrics)), table, out, scale, values)
