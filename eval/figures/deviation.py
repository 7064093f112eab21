"""Where pruning hurts: the denoiser's deviation from the dense one by depth and step."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from eval.analysis.analysis import Analysis
from eval.analysis.groups import Setting
from eval.figures import Traits

TRAITS = Traits(
    title="Error by depth and step",
    caption=(
        "Relative squared error of each transformer block's output, ‖pruned − dense‖² / ‖dense‖², at each step of "
        "the sampling loop, first step left, first block on top; each method at its highest sparsity. The pruned "
        "denoiser gets the dense model's latents at every step, so that errors gather over depth and not over "
        "steps. Light is far from dense; white is no error at all. One logarithmic scale per model."
    ),
    order=5,
)
ACROSS = 4
LABELLED = 16
"""more blocks than this are numbered instead of named"""


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    models: dict[str, list[Panel]] = {}
    for setting in analysis.settings:
        for label, (blocks, table) in tables(setting).items():
            title = f"{label}\n{setting.name.removeprefix(setting.model + ', ')}, {max(setting.lines[label]):g}"
            models.setdefault(setting.model, []).append(Panel(title, blocks, table))
    if not models:
        return None
    heights = [1.0 + lines_of(p) * (1.0 + 0.17 * min(max(len(p[0].blocks), 8), 24)) for p in models.values()]
    across = min(ACROSS, max(len(panels) for panels in models.values()))
    figure = plt.figure(figsize=(2.4 * across + 0.6, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(models), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, height, (model, panels) in zip(parts, heights, models.items(), strict=True):
        axes = part.subplots(lines_of(panels), across, squeeze=False)
        values = np.concatenate([panel.errors[panel.errors > 0] for panel in panels])
        norm = LogNorm(values.min(), values.max()) if values.size and values.min() < values.max() else None
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis, panel in zip(axes.flat, panels, strict=False):
            shown = heat(axis, panel, norm)
        scale = {} if norm is None else {"ticks": LogLocator(subs=(1, 3)), "format": "%.2g"}
        bar = part.colorbar(
            shown, ax=axes, location="top", fraction=0.3 / height, pad=0.2 / height, shrink=0.7, **scale
        )
        bar.set_label(f"{model}: relative squared error", fontsize=9)
        bar.ax.tick_params(labelsize=7)
        bar.minorticks_off()
    return figure


class Panel(NamedTuple):
    title: str
    blocks: list[str]
    errors: np.ndarray
    """(blocks, steps)"""


def lines_of(panels: Sequence[Panel]) -> int:
    return -(-len(panels) // ACROSS)


def heat(axis: Axes, panel: Panel, norm: LogNorm | None) -> Any:
    shown = axis.pcolormesh(np.ma.masked_less_equal(panel.errors, 0), cmap="viridis", norm=norm)
    axis.invert_yaxis()
    axis.set_title(panel.title, fontsize=8)
    axis.set_xlabel("step", fontsize=8)
    ticks = np.unique(np.linspace(0, panel.errors.shape[1] - 1, 5).round().astype(int))
    axis.set_xticks(ticks + 0.5, [str(tick + 1) for tick in ticks])
    axis.set_ylabel("block", fontsize=8)
    if len(panel.blocks) <= LABELLED:
        axis.set_yticks(np.arange(len(panel.blocks)) + 0.5, [short(name) for name in panel.blocks])
    axis.tick_params(labelsize=7)
    return shown


def tables(setting: Setting) -> dict[str, tuple[list[str], np.ndarray]]:
    """Label → names of the blocks and (blocks, steps) errors of a line's highest sparsity, averaged over seeds."""
    found = {}
    for label, line in setting.lines.items():
        made = [r.deviation for r in line[max(line)] if r.deviation]
        if made:
            found[label] = (made[0].blocks, np.mean([m.by_block for m in made], axis=0))
    return found


def short(name: str) -> str:
    """`down_blocks.1.attentions.0.transformer_blocks.0` → `down 1.0.0`, `single_transformer_blocks.3` → `single 3`."""
    kind = re.match(r"(down|mid|up|single)_", name)
    return " ".join([*([kind[1]] if kind else []), ".".join(re.findall(r"\d+", name))])
