"""metrics.json files and pictures → figures, legible in grey, as SVG and PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from eval.cells import PLAIN, cell_path, named, parse
from eval.tables import Cell, frame

mpl.use("Agg")
import matplotlib.pyplot as plt

SHOWN = ("fid", "clip_score", "recall_at_1", "cosine_to_dense")
MARKERS = "osD^vPX*<>"
PROMPTS_SHOWN = 6
FLOOR = "random"


def save(figure: Any, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "obsdiff", "svg.fonttype": "none"}):
        figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", bbox_inches="tight", dpi=130, metadata={"Software": None})
    plt.close(figure)


def quality_against_sparsity(cells: Sequence[Cell], folder: Path) -> None:
    """quality.svg/.png: a row of panels a model, pattern and sampling, a line a method and what else differs.

    The dense model is dashed. The axes span what is shown of all methods but `random`, which would flatten every
    difference between the others.
    """
    table = frame(cells)
    about = cells[0]["metrics"]
    apart = ("sparsity", "pattern", "sampling", "seed")
    table["line"] = [named(parse(cell_path(c)), *apart).replace("_", " ") for c in cells]
    pruned_rows = table[table["method"] != "dense"]
    rows = list(dict.fromkeys(pruned_rows[["model", "pattern", "sampling"]].itertuples(index=False, name=None)))
    rows = rows or [(cells[0]["cell"]["model"], "unstructured", cells[0]["cell"]["sampling"])]
    figure, axes = plt.subplots(
        len(rows), len(SHOWN), figsize=(3.6 * len(SHOWN), 3.2 * len(rows)), squeeze=False, layout="constrained"
    )
    for row, (model, pattern, sampling) in zip(axes, rows, strict=True):
        alike = (table["model"] == model) & (table["sampling"] == sampling)
        own = table[alike & ((table["pattern"] == pattern) | (table["method"] == "dense"))]
        pruned = own[own["method"] != "dense"]
        lines = pruned.groupby("line", sort=False)
        greys = np.linspace(0.0, 0.65, max(len(lines), 1))
        for axis, name in zip(row, SHOWN, strict=True):
            arrow = "higher is better" if about[name]["higher_is_better"] else "lower is better"
            axis.set_title(f"{about[name]['title']} ({arrow})", fontsize=10)
            for i, (label, line) in enumerate(lines):
                mean = line.groupby("sparsity")[name].mean()
                style = {"marker": MARKERS[i % len(MARKERS)], "linestyle": ("-", "--", ":", "-.")[i % 4]}
                axis.plot(mean.index, mean.values, color=plt.get_cmap("viridis")(greys[i] * 1.3), label=label, **style)
            axis.axhline(
                own.loc[own["method"] == "dense", name].mean(), color="0.5", linewidth=1, linestyle=(0, (6, 3))
            )
            shown = own.loc[own["method"] != FLOOR, name]
            if len(shown) > 1 and shown.min() < shown.max():
                margin = 0.08 * (shown.max() - shown.min())
                axis.set_ylim(shown.min() - margin, shown.max() + margin)
            axis.set_xlabel("sparsity")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{model}, {pattern}" + (f", {sampling}" if sampling != PLAIN else ""))
        row[-1].legend(*row[0].get_legend_handles_labels(), fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    save(figure, folder, "quality")


def picture_grid(cells: Sequence[Cell], folders: Sequence[Path], out: Path) -> None:
    """pictures.svg/.png of the first model, sampling and seed: rows methods, columns sparsities, the same prompts."""
    first = cells[0]["cell"]
    chosen = [
        (parse(folder), folder)
        for cell, folder in zip(cells, folders, strict=True)
        if all(cell["cell"][a] == first[a] for a in ("model", "sampling", "seed"))
    ]
    dense = next(folder for cell, folder in chosen if cell.method == "dense")
    pruned = [(cell, folder) for cell, folder in chosen if cell.method != "dense"]
    rows = list(dict.fromkeys(named(cell, "sparsity") for cell, _ in pruned))
    columns = sorted({cell.sparsity for cell, _ in pruned})
    prompts = cells[0]["prompts"][:PROMPTS_SHOWN]
    figure, axes = plt.subplots(
        len(rows) + 1,
        max(len(columns), 1),
        figsize=(2.4 * max(len(columns), 1), 1.6 * len(rows) + 2.8),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    axes[0][0].imshow(strip(dense, prompts))
    axes[0][0].set_ylabel("dense", fontsize=8)
    axes[0][0].set_title("\n".join(cells[0]["captions"][:PROMPTS_SHOWN]), fontsize=7)
    for cell, folder in pruned:
        r, c = rows.index(named(cell, "sparsity")) + 1, columns.index(cell.sparsity)
        axes[r][c].imshow(strip(folder, prompts))
        if r == 1:
            axes[r][c].set_title(cell.sparsity, fontsize=9)
        if c == 0:
            axes[r][c].set_ylabel(rows[r - 1].replace(" ", "\n", 1), fontsize=8)
    save(figure, out, "pictures")


def strip(folder: Path, prompts: Sequence[str], columns: int = 3) -> np.ndarray:
    """A cell's pictures of some prompts side by side, `columns` a line: uint8 (h, w, 3)."""
    pictures = [np.asarray(Image.open(folder / "images" / f"{p}.png").convert("RGB")) for p in prompts]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    lines = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    return np.concatenate(lines, axis=0)
