"""The prompts whose images pruning moves most, middling and least."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from eval.analysis.analysis import Analysis
from eval.analysis.groups import FLOOR
from eval.figures import Traits, image
from eval.report.words import line

TRAITS = Traits(
    title="Worst, median and best prompts",
    caption=(
        "Prompts by the similarity of their images to the dense model's (PSNR, in dB beneath each), averaged over "
        "all methods but random at the highest sparsity, for the first model, pattern, sampling and seed."
    ),
    order=9,
)
RANKED_BY = "psnr_to_dense"
EACH = 2


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    setting, places = analysis.settings[0], {r.cell.path: f for r, f in zip(analysis.records, folders, strict=True)}
    if not setting.lines or not setting.dense:
        return None
    highest = setting.sparsities[-1]
    rows = {"dense": setting.dense[0]} | {label: group[0] for label, group in setting.at(highest).items()}
    own = {label: places[record.cell.path] for label, record in rows.items()}
    measured = {label: m.samples for label, r in rows.items() if (m := r.metrics.get(RANKED_BY)) and m.samples}
    if measured.keys() != rows.keys() or not all((folder / "images").is_dir() for folder in own.values()):
        return None
    if len({tuple(record.prompts) for record in rows.values()}) > 1:
        return None
    pruned = {k: v for k, v in rows.items() if k != "dense"}
    ranking = [k for k, r in pruned.items() if r.cell.method != FLOOR] or list(pruned)
    order = np.argsort(np.mean([measured[label] for label in ranking], axis=0), kind="stable")
    columns = chosen(len(order))
    figure, axes = plt.subplots(
        len(rows),
        len(columns),
        figsize=(1.45 * len(columns) + 0.9, 1.4 * len(rows) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for row, (label, record) in zip(axes, rows.items(), strict=True):
        for axis, (kind, place) in zip(row, columns, strict=True):
            i = int(order[place])
            axis.imshow(image(own[label], record.prompts[i]))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if label == "dense":
                axis.set_title(f"{kind}\n{fill(line(record.captions[i]), 22)}", fontsize=7)
            else:
                axis.set_xlabel(f"{measured[label][i]:.1f} dB", fontsize=7, labelpad=2)
        row[0].set_ylabel(label.replace(" ", "\n", 1), fontsize=8)
    return figure


def chosen(count: int) -> list[tuple[str, int]]:
    """What a column is called and its place in the order, EACH of each kind, no place twice."""
    middle = (count - EACH) // 2
    kinds = (("worst", range(EACH)), ("median", range(middle, middle + EACH)), ("best", range(count - EACH, count)))
    places: dict[int, str] = {}
    for kind, found in kinds:
        for place in found:
            if 0 <= place < count:
                places.setdefault(place, kind)
    return [(kind, place) for place, kind in sorted(places.items())]
