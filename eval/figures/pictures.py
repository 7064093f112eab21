"""The same prompts and noise down the methods and across the sparsities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from eval.analysis.analysis import Analysis
from eval.analysis.groups import Setting
from eval.figures import Traits, strip
from eval.report.words import line
from eval.results import CellResult
from eval.sweep.cells import decimal

TRAITS = Traits(
    title="The same prompts and noise",
    caption=(
        "Rows are methods, columns sparsities (and patterns); the first row is the dense model. Every field shows "
        "the same captions from the same noise, of the first model, sampling and seed."
    ),
    order=8,
)
PROMPTS_SHOWN = 6
ACROSS = 3


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    found = analysis.settings
    alike = [s for s in found if (s.model, s.sampling) == (found[0].model, found[0].sampling)]
    places = {r.cell.path: f for r, f in zip(analysis.records, folders, strict=True) if (f / "images").is_dir()}
    if not found[0].dense or found[0].dense[0].cell.path not in places:
        return None
    dense, fields = found[0].dense[0], fields_of(alike)
    rows = list(dict.fromkeys(label for label, _ in fields))
    columns = list(dict.fromkeys(sorted((column for _, column in fields), key=order(alike))))
    prompts, captions = dense.prompts[:PROMPTS_SHOWN], [line(c) for c in dense.captions[:PROMPTS_SHOWN]]
    figure, axes = plt.subplots(
        len(rows) + 1,
        max(len(columns), 1),
        figsize=(2.4 * max(len(columns), 1) + 0.4, 1.6 * (len(rows) + 1) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.patch.set_visible(False)  # the captions run over the empty fields
    own = strip(places[dense.cell.path], prompts, ACROSS)
    for axis in axes[1:].flat:
        axis.imshow(np.full_like(own, 255))  # a field without a cell is as large as one with
    axes[0][0].imshow(own)
    axes[0][0].set_ylabel("dense", fontsize=8)
    words = "\n".join("; ".join(captions[i : i + ACROSS]) for i in range(0, len(captions), ACROSS))
    if len(columns) > 1:
        beside = axes[0][1].text(0, 0.5, words, fontsize=8, va="center", transform=axes[0][1].transAxes)
        beside.set_in_layout(False)
    else:
        axes[0][0].set_title("\n".join(captions), fontsize=7)
    for (label, column), record in fields.items():
        if (folder := places.get(record.cell.path)) is not None:
            axes[rows.index(label) + 1][columns.index(column)].imshow(strip(folder, prompts, ACROSS))
    for axis, row in zip(axes[1:, 0], rows, strict=True):
        axis.set_ylabel(row.replace(" ", "\n", 1), fontsize=8)
    if rows:
        several = len({pattern for pattern, _ in columns}) > 1
        for axis, (pattern, sparsity) in zip(axes[1], columns, strict=True):
            axis.set_title(f"{pattern}, {decimal(sparsity)}" if several else decimal(sparsity), fontsize=9)
    return figure


def fields_of(alike: Sequence[Setting]) -> dict[tuple[str, tuple[str, float]], CellResult]:
    """(row, (pattern, sparsity)) → result of the first seed."""
    return {
        (label, (setting.pattern, sparsity)): group[0] for setting in alike for label, sparsity, group in setting.pruned
    }


def order(alike: Sequence[Setting]) -> Any:
    """Columns of one pattern together, patterns in their order, sparsities ascending."""
    patterns = [setting.pattern for setting in alike]
    return lambda column: (patterns.index(column[0]), column[1])
