"""`python -m eval share`."""

from pathlib import Path

from eval.sweep.pinned import share as copy


def run(checkpoint: Path, out: Path) -> None:
    """Copy the checkpoint of the cell that this one is pinned to, verified.

    Args:
        checkpoint: that cell's.
        out: this cell's.
    """
    copy(checkpoint, out)
