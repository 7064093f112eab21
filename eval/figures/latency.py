"""Speed-up of a block and of the denoiser against sparsity, where shapes differ from the dense model's."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from eval.analysis.analysis import Analysis
from eval.analysis.groups import Setting
from eval.analysis.timings import stands_with_dense
from eval.figures import Traits, _panels

TRAITS = Traits(
    title="Latency against sparsity",
    caption=(
        "The dense model's time over the pruned one's, measured in turns in one process: of the transformer block "
        "in the middle and of the whole denoiser. The dashed line is the dense model. Bars are quartiles over calls "
        "(of several seeds the widest) or intervals, where they were measured. What runs as dense (unstructured, "
        "N:M) is not here."
    ),
    order=3,
)
SHOWN = ("block_speedup", "speedup")


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    return _panels.panels(analysis, SHOWN, dense=1.0, heading=heading)


def heading(setting: Setting) -> str | None:
    """Of a row; None where all of it stands with the dense model."""
    groups = [group for line in setting.lines.values() for group in line.values()]
    return None if all(stands_with_dense(record) for group in groups for record in group) else _panels.label_of(setting)
