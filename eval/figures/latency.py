"""Speed-up of a block and of the denoiser against sparsity."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from eval.estimates import Record
from eval.figures import _panels

TITLE = "Latency against sparsity"
CAPTION = (
    "The dense model's time over the pruned one's, measured in turns in one process: of the transformer block in the "
    "middle and of the whole denoiser. The dashed line is the dense model. Bars are quartiles over calls (of several "
    "seeds the widest) or intervals, where they were measured. Dense kernels do not skip zeros: unstructured and N:M "
    "points other than 1 are the machine's noise."
)
SHOWN = ("block_speedup", "speedup")


def draw(records: Sequence[Record], folders: Sequence[Path]) -> Figure | None:
    return _panels.panels(records, SHOWN, dense=1.0)
