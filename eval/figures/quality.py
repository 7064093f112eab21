"""Quality against sparsity."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from eval.analysis import shown
from eval.analysis.analysis import Analysis
from eval.figures import Traits, _panels

TRAITS = Traits(
    title="Quality against sparsity",
    caption=(
        "One line per method. The dashed line is the dense model, the grey band its interval; a metric that compares "
        "with the dense model has neither. Bars are 95 % intervals over prompts and seeds; what has none has no bar. "
        "The axes span all methods but random, which is far below the others."
    ),
    order=1,
)


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    return _panels.panels(analysis, shown.headlines())
