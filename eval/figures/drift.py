"""How far the pruned model's own trajectory leaves the dense one's."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from eval.analysis.analysis import Analysis
from eval.figures import Traits, _panels

TRAITS = Traits(
    title="Drift of the latents",
    caption=(
        "Relative squared error of the latents after each step, both models sampling on their own from the same "
        "noise: the deviation that gathers over the steps. Each method at its highest sparsity."
    ),
    order=6,
)


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    drawn = []
    for setting in analysis.settings:
        curves = {}
        for label, line in setting.lines.items():
            made = [r.deviation.latents for r in line[max(line)] if r.deviation]
            if made:
                curves[label] = (np.mean(made, axis=0), max(line))
        if curves:
            drawn.append((setting, curves))
    if not drawn:
        return None
    across = min(2, len(drawn))
    down = -(-len(drawn) // across)
    figure, axes = plt.subplots(down, across, figsize=(5.6 * across, 3.2 * down), squeeze=False, layout="constrained")
    for axis in axes.flat[len(drawn) :]:
        axis.axis("off")
    for axis, (setting, curves) in zip(axes.flat, drawn, strict=False):
        for i, (label, (curve, sparsity)) in enumerate(curves.items()):
            steps = np.arange(1, len(curve) + 1)
            axis.plot(steps, curve, label=f"{label}, {sparsity:g}", **_panels.style(i, len(curves)))
        if all((curve > 0).all() for curve, _ in curves.values()):
            axis.set_yscale("log")
        axis.set_title(setting.name, fontsize=9, loc="left", fontweight="bold")
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel("relative squared error of latents", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
