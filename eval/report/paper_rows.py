"""Rows of a paper's table: its own numbers, and beside them our cells of the same axes.

config/paper/values.csv holds the paper's numbers, one per line: table, axes of a cell as in its path (an empty one
is whatever the sweep has), metric, value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from eval.analysis.configurations import Configuration
from eval.analysis.timings import as_dense
from eval.results import CellResult
from eval.sweep.cells import AXES, named
from obsdiff.errors import SpecError

VALUES = Path("config/paper/values.csv")


@dataclass(frozen=True)
class Column:
    """A metric of the paper.

    Attributes:
        ours: our metric of it.
        factor: from our unit to the paper's.
        digits: shown.
        beside: another column, of our numbers alone, that belongs to it.
        higher_is_better: the direction of a metric that verdicts are about; None of others.
    """

    title: str
    ours: str
    factor: float
    digits: int
    beside: str = ""
    higher_is_better: bool | None = None


COLUMNS = {
    "params_B": Column("parameters, B", "nonzero_parameters", 1e-3, 2),
    "tflops": Column("TFLOPs as the paper counts", "paper_tflops", 1.0, 2, "tflops_in_use"),
    "tflops_in_use": Column("TFLOPs of a call in use, ours", "denoiser_tflops", 1.0, 2),
    "fid": Column("FID", "fid", 1.0, 2, higher_is_better=False),
    "clip": Column("CLIP score", "clip_score", 1.0, 4, higher_is_better=True),
    "imagereward": Column("ImageReward", "image_reward", 1.0, 4, higher_is_better=True),
    "block_ms": Column("block, ms", "batch_block_ms", 1.0, 2),
    "speedup": Column("block speed-up", "batch_block_speedup", 1.0, 2),
    "memory_GB": Column("memory, GB", "pruning_memory", 2**20 / 1e9, 2),
    "seconds": Column("pruning, s", "pruning_seconds", 1.0, 1),
    "minutes": Column("pruning, min", "pruning_seconds", 1 / 60, 2),
}


@dataclass
class Row:
    """A row of the table.

    Attributes:
        axes: axis → text, no seed; of a row that the paper has, those that it states.
        name: of a row that only we have, the label of its cell beside the axes that the paper states.
        paper, ours: metric of COLUMNS → value in the paper's unit.
        as_dense: those of ours that are the dense model's, whose kernels multiply zeros too.
        cells: ours, a seed each.
    """

    axes: dict[str, str]
    name: str = ""
    paper: dict[str, float] = field(default_factory=dict)
    ours: dict[str, float] = field(default_factory=dict)
    as_dense: set[str] = field(default_factory=set)
    cells: Configuration = field(default_factory=lambda: Configuration([]))


def read_values(table: int, path: Path = VALUES) -> list[Row]:
    """The paper's rows of a table, in its order.

    Raises:
        SpecError: the file has no such table.
    """
    values = pd.read_csv(path, dtype=str, keep_default_na=False)
    mine = values[values["table"] == str(table)]
    if mine.empty:
        raise SpecError(f"paper: {table} is not one of the tables of {path} ({', '.join(values['table'].unique())})")
    axes = [axis for axis in AXES if axis in values]
    found: dict[tuple[str, ...], Row] = {}
    for record in mine.to_dict("records"):
        key = tuple(record[axis] for axis in axes)
        row = found.setdefault(key, Row({axis: text for axis, text in zip(axes, key, strict=True) if text}))
        row.paper[record["metric"]] = float(record["value"])
    return list(found.values())


def join(rows: Sequence[Row], cells: Sequence[CellResult]) -> list[Row]:
    """The paper's rows with our values, then our own rows.

    A paper's row takes the first cell that has its axes; cells that differ from it in their seed alone are averaged.
    """
    waiting = [(vars(cell.cell), cell) for cell in cells]

    def take(axes: Mapping[str, str]) -> tuple[dict[str, str], list[CellResult]]:
        first = next((mine for mine, _ in waiting if axes.items() <= mine.items()), None)
        unseeded = {k: v for k, v in first.items() if k != "seed"} if first else {"model": ""}
        same = [entry for entry in waiting if unseeded.items() <= entry[0].items()]
        waiting[:] = [entry for entry in waiting if entry not in same]
        return unseeded, [cell for _, cell in same]

    metrics = metrics_of(rows)
    found = []
    for row in rows:
        mine = take(row.axes)[1]
        found.append(own(row.axes, "", row.paper, mine, metrics))
    stated = {axis for row in rows for axis in row.axes} - {"method"}
    while waiting:
        axes, mine = take(waiting[0][0])
        name = named(mine[0].cell, "seed", *stated)
        found.append(own(axes, name, {}, mine, metrics))
    return found


def own(
    axes: dict[str, str], name: str, paper: dict[str, float], cells: Sequence[CellResult], metrics: Sequence[str]
) -> Row:
    """A row with what our cells of it measured."""
    seeds = Configuration(sorted(cells, key=lambda cell: int(cell.cell.seed)))
    return Row(axes, name, paper, ours(cells, metrics), dense_times(cells, metrics), seeds)


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Those that the paper reports, in its order, each with what belongs beside it."""
    found = dict.fromkeys(name for row in rows for name in row.paper)
    return [each for name in found for each in (name, COLUMNS[name].beside) if each]


def ours(cells: Sequence[CellResult], metrics: Sequence[str]) -> dict[str, float]:
    """Means over cells of what they measured, in the paper's units."""
    found = {}
    for name in metrics:
        column = COLUMNS[name]
        values = [c.metrics[column.ours].value for c in cells if column.ours in c.metrics]
        if values:
            found[name] = column.factor * sum(values) / len(values)
    return found


def dense_times(cells: Sequence[CellResult], metrics: Sequence[str]) -> set[str]:
    """Those of the metrics that are times of the dense model for all of these cells."""
    return {name for name in metrics if cells and as_dense(cells, COLUMNS[name].ours)}
