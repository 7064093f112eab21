"""Paired differences to OBS-Diff, the ones that a table's marks are made from."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from eval.analysis import shown
from eval.analysis.analysis import Analysis
from eval.analysis.comparisons import BASE
from eval.analysis.groups import Point, Setting
from eval.figures import Traits, _panels

TRAITS = Traits(
    title="Paired differences",
    caption=(
        "Each configuration minus OBS-Diff's first, named in the heading, over the same prompts, noise and seeds. "
        "Bars are 95 % intervals: one that crosses the dashed line at 0 says that the two are not significantly "
        "different. Intervals of the values themselves are wider, as they hold what is easy or hard about a prompt "
        "too. The axes span all methods but random."
    ),
    order=2,
)


def base_of(setting: Setting) -> str | None:
    """The label of the setting's first OBS-Diff configuration; None where there is none."""
    own = (label for label, line in setting.lines.items() if next(iter(line.values()))[0].cell.method == BASE)
    return next(own, None)


def heading(setting: Setting) -> str | None:
    """None where no difference has an interval."""
    pairs = ((label, sparsity) for label, line in setting.lines.items() for sparsity in line)
    if not any(difference(setting, *pair, name) for pair in pairs for name in shown.headlines()):
        return None
    return f"{_panels.label_of(setting)}: minus {base_of(setting)}"


def difference(setting: Setting, label: str, sparsity: float, name: str) -> Point | None:
    at, base = setting.at(sparsity), base_of(setting)
    if label == base or base not in at:
        return None
    found = at[label].minus(at[base], name)
    if found is None or found.difference.interval is None:
        return None
    return Point(found.difference.value, *found.difference.interval)


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    return _panels.panels(analysis, shown.headlines(), 0.0, difference, heading)
