"""Figures of a sweep, legible in grey. An entry is one figure, its file's stem the name of the SVG and PNG.

TITLE, CAPTION           literals: what it shows, and how to read it
draw(records, folders)   metrics.json records and their cells' folders → Figure, or None where there is nothing to show
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from eval.estimates import Record
from obsdiff import registry

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

ORDER = (
    *("quality", "differences", "latency", "tradeoff", "deviation", "drift"),
    *("weightings", "pictures", "prompts"),
)
"""on a page; others come after them"""


def ordered() -> list[str]:
    """Names of all entries as a page shows them."""
    names = registry.names(__name__)
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def write_figures(records: Sequence[Record], folders: Sequence[Path], out: Path) -> list[str]:
    """Draw what the sweep has to show; what an earlier run left in `out` and has no entry any more goes.

    Args:
        folders: the records' cells, in the same order.
        out: folder of <name>.svg and <name>.png.

    Returns:
        The names drawn.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("*.svg"), *out.glob("*.png")):
        old.unlink()
    drawn = []
    for name in ordered():
        figure = registry.load(__name__, name).draw(records, folders)
        if figure is not None:
            save(figure, out, name)
            drawn.append(name)
    return drawn


def save(figure: Figure, folder: Path, name: str) -> None:
    """<name>.svg and <name>.png; the same figure has the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")  # laid out once, not anew for each file
    with mpl.rc_context({"svg.hashsalt": "obsdiff", "svg.fonttype": "none"}):
        figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", bbox_inches="tight", dpi=130, metadata={"Software": None})
    plt.close(figure)


def strip(folder: Path, prompts: Sequence[str], columns: int = 3) -> np.ndarray:
    """A cell's pictures of some prompts side by side, `columns` a line: uint8 (h, w, 3)."""
    pictures = [picture(folder, p) for p in prompts]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    lines = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    return np.concatenate(lines, axis=0)


def picture(folder: Path, prompt: str) -> np.ndarray:
    """A cell's picture of a prompt, uint8 (h, w, 3)."""
    return np.asarray(Image.open(folder / "images" / f"{prompt}.png").convert("RGB"))
