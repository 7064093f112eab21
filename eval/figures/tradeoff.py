"""Quality against what pruning costs and what is left to keep."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from eval.analysis.analysis import Analysis
from eval.analysis.groups import about, point
from eval.figures import Traits, _panels

TRAITS = Traits(
    title="Time, memory and disk against quality",
    caption=(
        "A marker a method: filled at its highest sparsity, hollow at the others. Vertical bars are 95 % intervals "
        "over prompts and seeds; times and memory are single readings."
    ),
    order=4,
)
QUALITY = ("psnr_to_dense", "fid")
"""the first of these that was measured"""
COSTS = ("pruning_seconds", "pruning_memory", "checkpoint_mb")
LOGARITHMIC = ("pruning_seconds",)


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    quality = next((name for name in QUALITY if about(analysis.records, name)), None)
    costs = {name: metric for name in COSTS if (metric := about(analysis.records, name))}
    rows = [setting for setting in analysis.settings if setting.lines]
    if quality is None or not costs or not rows:
        return None
    named = about(analysis.records, quality)
    assert named is not None
    figure, axes = plt.subplots(
        len(rows), len(costs), figsize=(3.6 * len(costs) + 1.6, 3.1 * len(rows)), squeeze=False, layout="constrained"
    )
    for line, setting in zip(axes, rows, strict=True):
        for axis, (name, metric) in zip(line, costs.items(), strict=True):
            for i, (label, groups) in enumerate(setting.lines.items()):
                style = _panels.style(i, len(setting.lines))
                points = [(x, y) for g in groups.values() if (x := point(g, name)) and (y := point(g, quality))]
                for n, (x, y) in enumerate(points):
                    last = n == len(points) - 1
                    filled = {} if last else {"markerfacecolor": "white"}
                    bars = [[y.value - y.low], [y.high - y.value]]
                    own = style | filled | {"linestyle": "none", "label": label if last else None}
                    axis.errorbar([x.value], [y.value], bars, **own, **_panels.BAR)
                thin = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 0.7}
                axis.plot([x.value for x, _ in points], [y.value for _, y in points], zorder=1, **thin)
                if name in LOGARITHMIC and all(x.value > 0 for x, _ in points):
                    axis.set_xscale("log")
            if axis.get_xscale() == "log":
                _panels.ticks_in_full(axis.xaxis)
            axis.set_xlabel(f"{metric.title} ({metric.unit})", fontsize=9)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f"{named.title} ({named.unit})", fontsize=9)
        line[0].set_title(_panels.label_of(setting), fontsize=9, loc="left", fontweight="bold")
        line[-1].legend(*line[0].get_legend_handles_labels(), fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure
