"""The timestep weightings that the sweep's cells were calibrated with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from eval.analysis.analysis import Analysis
from eval.figures import Traits, _panels
from eval.results import CellResult
from obsdiff import methods, weightings

TRAITS = Traits(
    title="Timestep weightings",
    caption=(
        "The weight α of each calibration step, first (noisiest) step first, as far as a method of this sweep uses "
        "it. Only the ratios of a curve's values matter: a scaling of all of them changes no mask."
    ),
    order=7,
)


def draw(analysis: Analysis, folders: Sequence[Path]) -> Figure | None:
    specs = [r.spec for r in analysis.records if weighted(r)]
    curves = {text: values for spec in specs for text, values in [curve(spec)]}
    if not curves:
        return None
    figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for i, (label, values) in enumerate(curves.items()):
        axis.plot(np.arange(1, len(values) + 1), values, label=label, **_panels.style(i, len(curves)))
    axis.set_ylim(bottom=0)
    axis.set_xlabel("step", fontsize=9)
    axis.set_ylabel("weight α", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def weighted(record: CellResult) -> bool:
    return methods.traits(record.cell.method).weighted


def curve(spec: dict[str, Any]) -> tuple[str, list[float]]:
    """Name and values of a spec's weighting over the steps it asked for."""
    name = spec["weighting"]
    traits = weightings.traits(name)
    low, high, steps = spec["alpha_min"], spec["alpha_max"], spec["sampling"]["steps"]
    values = weightings.alphas(name, steps, low, high, spec["alphas"]).tolist()
    if traits.table:
        return f"{name} " + ", ".join(f"{a:g}" for a in spec["alphas"]), values
    return f"{name} {low:g} to {high:g}" if traits.ranged else name, values
