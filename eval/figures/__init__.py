"""Figures of a sweep, legible in grey. A figure is one file; its stem is the name of the SVG and PNG."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

from eval.analysis.analysis import Analysis
from eval.images.opening import open_image
from eval.report import words
from obsdiff import registry
from obsdiff.captions.prompts import file_name

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

NARROWEST = 1.8
"""inches of axes beside which a legend may take room"""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a page must know of a figure.

    Attributes:
        title: what it shows.
        caption: how to read it.
        order: its place on a page, from 1; by default after all others.
    """

    title: str
    caption: str
    order: int = 1000


class Draws(Protocol):
    """A file of this folder."""

    def draw(self, analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
        """The figure, or None if there is nothing to show; texts are drawn as they are, `$` begins no formula.

        Args:
            analysis: of a sweep's records.
            folders: their cells' folders.
        """


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)


def ordered() -> list[str]:
    """Names of all entries in the order of a page."""
    return sorted(registry.names(__name__), key=lambda name: (traits(name).order, name))


def write_figures(analysis: Analysis, folders: Sequence[Path], out: Path) -> list[str]:
    """Draw what the sweep has to show; what an earlier run left in `out` and has no entry any more goes.

    Args:
        folders: of the analysis's records, in the same order.
        out: folder of <name>.svg and <name>.png.

    Returns:
        The names drawn.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("*.svg"), *out.glob("*.png")):
        old.unlink()
    drawn = []
    for name in ordered():
        figure = registry.load(__name__, name).draw(analysis, folders)
        if figure is not None:
            save(figure, out, name)
            drawn.append(name)
    return drawn


def save(figure: Figure, folder: Path, name: str) -> None:
    """<name>.svg and <name>.png; the same figure has the same bytes. Its texts are drawn as they are, not as formulas.

    A caption may hold letters that the font lacks: they are boxes in the PNG, and themselves in the SVG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_text(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph|Matplotlib currently does not support", UserWarning)
        lay_out(figure)
        with mpl.rc_context({"svg.hashsalt": "obsdiff", "svg.fonttype": "none"}):
            figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", bbox_inches="tight", dpi=130, metadata={"Software": None})
    plt.close(figure)


def lay_out(figure: Figure) -> None:
    """Lay a figure out once, not anew for each file. Legends that leave its axes too little stand beside the figure."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    legends = figure.findobj(Legend)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "constrained_layout not applied", UserWarning)
            engine.execute(figure)
        narrow = any(axes.get_window_extent().width < NARROWEST * figure.dpi for axes in figure.axes)
    except UserWarning:
        narrow = True
    if narrow and legends:
        for legend in legends:
            legend.set_in_layout(False)
        engine.execute(figure)
        for legend in legends:  # so that the file is made wide enough
            legend.set_in_layout(True)
    figure.set_layout_engine("none")


def as_text(figure: Figure) -> None:
    """Write every text of a figure so that it shows itself; what a scale writes on its axis stays as it is."""
    for text in figure.findobj(Text):
        text.set_text(words.drawn(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_major_formatter()
            if isinstance(labels, FixedFormatter):
                axis.set_major_formatter(FixedFormatter([words.drawn(label) for label in labels.seq]))


def strip(folder: Path, prompts: Sequence[str], columns: int = 3) -> np.ndarray:
    """A cell's images of some prompts side by side, `columns` a line: uint8 (h, w, 3)."""
    pictures = [image(folder, p) for p in prompts]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    lines = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    return np.concatenate(lines, axis=0)


def image(folder: Path, prompt: str) -> np.ndarray:
    """A cell's image of a prompt's id, uint8 (h, w, 3)."""
    return np.asarray(open_image(folder / "images" / f"{file_name(prompt)}.png"))
