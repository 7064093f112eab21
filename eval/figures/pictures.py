"""The same prompts and noise down the methods and across the sparsities."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from eval.cells import named, parse
from eval.estimates import Record
from eval.figures import strip

TITLE = "The same prompts and noise"
CAPTION = (
    "Rows are methods, columns sparsities; the first row is the dense model. Every field shows the same captions from "
    "the same noise, of the first model, sampling and seed."
)
PROMPTS_SHOWN = 6


def draw(records: Sequence[Record], folders: Sequence[Path]) -> Figure | None:
    first = records[0]["cell"]
    chosen = [
        (parse(folder), folder)
        for record, folder in zip(records, folders, strict=True)
        if all(record["cell"][a] == first[a] for a in ("model", "sampling", "seed")) and (folder / "images").is_dir()
    ]
    dense = next((folder for cell, folder in chosen if cell.method == "dense"), None)
    if dense is None:
        return None
    pruned = [(cell, folder) for cell, folder in chosen if cell.method != "dense"]
    rows = list(dict.fromkeys(named(cell, "sparsity", "seed") for cell, _ in pruned))
    columns = sorted({cell.sparsity for cell, _ in pruned})
    prompts, captions = records[0]["prompts"][:PROMPTS_SHOWN], records[0]["captions"][:PROMPTS_SHOWN]
    figure, axes = plt.subplots(
        len(rows) + 1,
        max(len(columns), 1),
        figsize=(2.4 * max(len(columns), 2), 1.6 * (len(rows) + 1) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    axes[0][0].imshow(strip(dense, prompts))
    axes[0][0].set_ylabel("dense", fontsize=8)
    words = "\n".join(", ".join(captions[i : i + 3]) for i in range(0, len(captions), 3))
    figure.suptitle(words, fontsize=7, x=0.01, ha="left")
    for cell, folder in pruned:
        r, c = rows.index(named(cell, "sparsity", "seed")) + 1, columns.index(cell.sparsity)
        axes[r][c].imshow(strip(folder, prompts))
    for axis, row in zip(axes[1:, 0], rows, strict=True):
        axis.set_ylabel(row.replace(" ", "\n", 1), fontsize=8)
    if rows:
        for axis, column in zip(axes[1], columns, strict=True):
            axis.set_title(column, fontsize=9)
    return figure
