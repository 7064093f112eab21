"""The table of what configurations cost, and what zeros were measured to take on dense kernels."""

from collections.abc import Sequence
from typing import Any

from eval.analysis import shown
from eval.analysis.configurations import Configuration
from eval.analysis.groups import point
from eval.analysis.timings import AS_DENSE, as_dense, zeros_of
from eval.model_metrics import Model
from eval.report.columns import axes_columns, formatted, measured_names, table, title
from eval.report.words import marked
from eval.sweep.cells import PLAIN, Cell
from eval.sweep.clocked import clocked_names
from obsdiff import registry

Zeros = dict[str, Any]
"""what zeros_of() returns"""

NOTE = (
    "Dense kernels multiply zeros (unstructured, N:M) like other numbers: such cells take the dense model's time, are "
    f"not timed each, and say *{AS_DENSE}*."
)

CLOCK = (
    "Speed-ups are over the dense weights, timed in turns in the same process: medians, with the widest quartiles of "
    "the seeds. Milliseconds of different jobs, in summary.csv, differ by more than that."
)


def cost(rows: Sequence[Configuration]) -> str:
    """Means over seeds; a time that is the dense model's says so, and below that model stands what zeros take."""
    names = measured_names(rows, shown.names("cost"))
    axes = axes_columns(rows, rows)
    columns: dict[str, list[str]] = {key: [] for key in (*axes, *(title(rows, name) for name in names))}
    zeros = zeros_shown(rows)
    for place, row in enumerate(rows):
        lines = [[texts[place] for texts in axes.values()] + [text_of(row, name) for name in names]]
        if (found := zeros.get(row)) is not None:
            own = [zeros_axis(axis, row.cell, found) for axis in axes]
            lines.append(own + [zeros_text(found, name) for name in names])
        for one in lines:
            for column, text in zip(columns.values(), one, strict=True):
                column.append(text)
    notes = [zeros_note(row.cell, found, several=len(zeros) > 1) for row, found in zeros.items()]
    parts = [" ".join([NOTE, *notes]) if zeros else "", clock_note(rows), table(columns)]
    return "\n\n".join(part for part in parts if part)


def clock_note(rows: Sequence[Configuration]) -> str:
    """What speed-ups are relative to, and what the dense models take; empty where none was timed."""
    times = []
    for row in rows:
        step, image = point(row, "denoiser_ms"), point(row, "pipeline_ms")
        if row.cell.method == "dense" and step and image:
            own = (
                f"{with_quartiles(*step)} ms for a denoiser step and {with_quartiles(*image)} ms for the whole pipeline"
            )
            times.append(f"{where_of(row.cell)} takes {own}")
    return f"{CLOCK} With one prompt, the dense {'; '.join(times)}." if times else ""


def text_of(records: Configuration, name: str) -> str:
    if as_dense(records, name):
        return AS_DENSE
    if (found := point(records, name)) is None:
        return ""
    if name in clocked_names():
        return with_quartiles(*found)
    # the dense model's checkpoint is a header of some bytes
    return formatted(found[0] if abs(found[0]) > 1e-3 else 0)


def with_quartiles(value: float, low: float, high: float) -> str:
    """`1.31 [1.24, 1.40]`, as a clock is not worth a fourth digit."""
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def zeros_shown(rows: Sequence[Configuration]) -> dict[Configuration, Zeros]:
    """Dense configurations beside which others stand as dense → what was measured of zeros on them."""
    masked = [row.cell for row in rows if any(as_dense(row, name) for name in clocked_names())]
    beside = {(cell.model, cell.sampling) for cell in masked}
    dense = [row for row in rows if (row.cell.model, row.cell.sampling) in beside]
    return {row: zeros for row in dense if (zeros := zeros_of(row))}


def zeros_axis(axis: str, cell: Cell, zeros: Zeros) -> str:
    own = {"method": f"dense, {100 * zeros['share']:.0f} % zeros"}
    return own.get(axis, marked(getattr(cell, axis)) if axis in ("model", "sampling") else "")


def zeros_text(zeros: Zeros, name: str) -> str:
    if name not in clocked_names():
        return ""
    value, (low, high) = zeros_value(zeros, name)
    return with_quartiles(value, low, high)


def zeros_value(zeros: Zeros, name: str) -> tuple[float, tuple[float, float]]:
    """A metric of a clock of the zeroed weights, with its quartiles."""
    value, quartiles = registry.load("eval.model_metrics", name).compute(Model.of_times(zeros))
    return float(value), quartiles


def where_of(cell: Cell) -> str:
    return ", ".join(marked(text) for text in (cell.model, cell.sampling) if text != PLAIN)


def zeros_note(cell: Cell, zeros: Zeros, several: bool) -> str:
    """What was measured of zeros, in a sentence."""
    parts = []
    for name, what in (("speedup", "with a full batch"), ("latency_speedup", "with one prompt")):
        value, (low, high) = zeros_value(zeros, name)
        parts.append(f"{formatted(value)} [{formatted(low)}, {formatted(high)}] times as fast {what}")
    return (
        f"Measured{f' on {where_of(cell)}' if several else ''}, in turns with the dense weights: with the smallest "
        f"{100 * zeros['share']:.0f} % of every prunable layer's weights set to zero the denoiser runs "
        f"{' and '.join(parts)} (quartiles over rounds)."
    )
