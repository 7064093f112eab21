"""Panels of metrics: lines against sparsity, or dots per configuration where there is one sparsity."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from eval.analysis.analysis import Analysis
from eval.analysis.configurations import Configuration
from eval.analysis.groups import FLOOR, Point, Setting, about, point
from eval.analysis.shown import names as names_of
from eval.results import Metric

MARKERS = "osD^vPX*<>"
STROKES = ("-", "--", ":", "-.")
DENSE = {"color": "0.45", "linewidth": 1, "linestyle": (0, (6, 3))}
BAR = {"elinewidth": 1, "capsize": 2.5}
Reading = Callable[[Setting, str, float, str], Point | None]
"""what stands for a label, a sparsity and a metric of a setting"""


def value(setting: Setting, label: str, sparsity: float, name: str) -> Point | None:
    """The metric itself."""
    return point(setting.lines[label][sparsity], name)


def style(i: int, count: int) -> dict[str, Any]:
    """Of line i of `count`: dark to light in grey, told apart by marker and stroke as well."""
    shade = np.linspace(0.0, 0.85, max(count, 1))[i]
    return {
        "color": plt.get_cmap("viridis")(shade),
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": STROKES[i % len(STROKES)],
        "markersize": 5,
    }


def ticks_in_full(axis: Axis) -> None:
    """Few ticks of a logarithmic axis that was drawn on, written as 20: labels such as 2 × 10¹ run into each other."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=6))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def titled(metric: Metric) -> str:
    arrow = {True: "\nhigher is better", False: "\nlower is better", None: ""}[metric.higher_is_better]
    return f"{metric.title} ({metric.unit}){arrow}"


def label_of(setting: Setting) -> str:
    only = setting.sparsities
    return setting.name + (f", {only[0]:g}" if len(only) == 1 and ":" not in setting.pattern else "")


def panels(
    analysis: Analysis,
    names: Sequence[str],
    dense: float | None = None,
    read: Reading = value,
    heading: Callable[[Setting], str | None] = label_of,
) -> Figure | None:
    """A row per setting, a panel per metric, a line per method and other difference; None where nothing was pruned.

    Args:
        names: metrics; those that no cell has are left out.
        dense: where the dashed line is; at the dense model's own value, with its interval, by default.
        heading: of a row; None leaves the row out.
    """
    shown = {name: found for name in names if (found := about(analysis.records, name)) is not None}
    rows = [setting for setting in analysis.settings if setting.lines and heading(setting) is not None]
    if not rows or not shown:
        return None
    heights = [1.5 + 0.26 * len(row.lines) if single(row) else 3.3 for row in rows]
    figure = plt.figure(figsize=(3.3 * len(shown) + 1.6, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, setting in zip(parts, rows, strict=True):
        part.suptitle(heading(setting), fontsize=10, fontweight="bold", x=0.01, ha="left")
        axes = part.subplots(1, len(shown), sharey=single(setting))
        line = list(axes) if len(shown) > 1 else [axes]
        for axis, (name, metric) in zip(line, shown.items(), strict=True):
            (draw_dots if single(setting) else draw_lines)(axis, setting, name, dense, read)
            axis.set_title(titled(metric), fontsize=9)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
        if not single(setting):
            line[-1].legend(
                *line[0].get_legend_handles_labels(), fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1)
            )
    return figure


def single(setting: Setting) -> bool:
    return len(setting.sparsities) == 1


def draw_lines(axis: Axes, setting: Setting, name: str, dense: float | None, read: Reading) -> None:
    for i, (label, line) in enumerate(setting.lines.items()):
        found = [(s, p) for s in line if (p := read(setting, label, s, name))]
        bars = [[p.value - p.low for _, p in found], [p.high - p.value for _, p in found]]
        own = style(i, len(setting.lines)) | BAR
        axis.errorbar([s for s, _ in found], [p.value for _, p in found], bars, label=label, **own)
    level(axis.axhline, axis.axhspan, setting.dense, name, dense)
    if limits := spanned(setting, name, dense, read):
        axis.set_ylim(*limits)
    axis.set_xlabel("sparsity", fontsize=8)


def draw_dots(axis: Axes, setting: Setting, name: str, dense: float | None, read: Reading) -> None:
    for i, (label, line) in enumerate(setting.lines.items()):
        if p := read(setting, label, next(iter(line)), name):
            own = style(i, len(setting.lines)) | BAR | {"linestyle": "none"}
            axis.errorbar([p.value], [i], xerr=[[p.value - p.low], [p.high - p.value]], **own)
    level(axis.axvline, axis.axvspan, setting.dense, name, dense)
    if limits := spanned(setting, name, dense, read):
        axis.set_xlim(*limits)
    axis.set_yticks(range(len(setting.lines)), list(setting.lines))
    axis.set_ylim(len(setting.lines) - 0.5, -0.5)
    axis.locator_params(axis="x", nbins=5)


def level(line: Any, span: Any, group: Configuration, name: str, dense: float | None) -> None:
    """The dense model: a dashed line, and a band where its value has an interval."""
    own = own_value(group, name)
    if dense is not None:
        line(dense, **DENSE)
    elif own:
        line(own.value, **DENSE)
        if own.low < own.high:
            span(own.low, own.high, color="0.88", linewidth=0, zorder=0)


def own_value(dense: Configuration, name: str) -> Point | None:
    """The dense model's; None of a metric that compares with the dense model, where it says nothing."""
    return None if name in names_of("similarity") else point(dense, name)


def spanned(setting: Setting, name: str, dense: float | None, read: Reading) -> tuple[float, float] | None:
    """Limits of an axis that shows all but the floor; None where that is a single value."""
    kept = [(t, s) for t, line in setting.lines.items() for s, g in line.items() if g[0].cell.method != FLOOR]
    points = [p for label, sparsity in kept if (p := read(setting, label, sparsity, name))]
    if dense is None and (own := own_value(setting.dense, name)):
        points.append(own)
    ends = [end for p in points for end in (p.low, p.high)] + ([] if dense is None else [dense])
    if not kept or not ends or min(ends) == max(ends):
        return None
    margin = 0.08 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin
