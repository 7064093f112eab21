"""Where pruning hurts: the denoiser's deviation from the dense one by depth and step."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from eval.estimates import Record
from eval.settings import Setting, settings

TITLE = "Error by depth and step"
CAPTION = (
    "Relative squared error of each transformer block's output, ‖pruned − dense‖² / ‖dense‖², at each step of the sampling "
    "loop, first step left, first block on top; each method at its highest sparsity. The pruned denoiser gets the dense "
    "model's latents at every step, so that errors gather over depth and not over steps. Light is far from dense; white "
    "is no error at all. One logarithmic scale a model."
)
ACROSS = 4
LABELLED = 16
"""more blocks than this are numbered instead of named"""


def draw(records: Sequence[Record], folders: Sequence[Path]) -> Figure | None:
    panels = [(s, label, table) for s in settings(records) for label, table in tables(s).items()]
    if not panels:
        return None
    lines, across = -(-len(panels) // ACROSS), min(ACROSS, len(panels))
    tallest = max(len(table) for _, _, (_, table) in panels)
    figure, axes = plt.subplots(
        lines,
        across,
        figsize=(2.5 * across + 1.2, lines * (1.1 + 0.17 * min(max(tallest, 8), 24))),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for model in dict.fromkeys(setting.model for setting, _, _ in panels):
        own = [(axis, panel) for axis, panel in zip(axes.flat, panels, strict=False) if panel[0].model == model]
        values = np.concatenate([table[table > 0] for _, (_, _, (_, table)) in own])
        norm = LogNorm(values.min(), values.max()) if values.size and values.min() < values.max() else None
        for axis, (setting, label, (blocks, table)) in own:
            shown = axis.pcolormesh(np.ma.masked_less_equal(table, 0), cmap="viridis", norm=norm)
            axis.invert_yaxis()
            axis.set_title(f"{label}\n{setting.name}, {max(setting.lines[label]):g}", fontsize=8)
            axis.set_xlabel("step", fontsize=8)
            ticks = np.unique(np.linspace(0, table.shape[1] - 1, 5).round().astype(int))
            axis.set_xticks(ticks + 0.5, ticks + 1)
            if len(blocks) <= LABELLED:
                axis.set_yticks(np.arange(len(blocks)) + 0.5, [short(name) for name in blocks])
            else:
                axis.set_ylabel("block", fontsize=8)
            axis.tick_params(labelsize=7)
        bar = figure.colorbar(shown, ax=[axis for axis, _ in own], shrink=0.8)
        bar.set_label(f"relative squared error, {model}", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def tables(setting: Setting) -> dict[str, tuple[list[str], np.ndarray]]:
    """Label → names of the blocks and (blocks, steps) errors of a line's highest sparsity, averaged over seeds."""
    found = {}
    for label, line in setting.lines.items():
        made = [r["deviation"] for r in line[max(line)] if r.get("deviation")]
        if made:
            found[label] = (made[0]["blocks"], np.mean([m["by_block"] for m in made], axis=0))
    return found


def short(name: str) -> str:
    """`down_blocks.1.attentions.0.transformer_blocks.0` → `down 1.0.0`, `single_transformer_blocks.3` → `single 3`."""
    kind = re.match(r"(down|mid|up|single)_", name)
    return " ".join([*([kind[1]] if kind else []), ".".join(re.findall(r"\d+", name))])
