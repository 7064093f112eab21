"""A paper's table with its own numbers and ours side by side: paper.md, paper.csv, paper.tex.

config/paper/values.csv holds the paper's numbers, one per line: table, axes of a cell as in its path (an empty one
is whatever the sweep has), metric, value. What only one side has is shown all the same, as `–` on the other.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from eval.analysis.timings import AS_DENSE, as_dense
from eval.results import CellResult
from eval.sweep.cells import AXES, PLAIN, named
from obsdiff.errors import SpecError

VALUES = Path("config/paper/values.csv")
NONE = "–"


@dataclass(frozen=True)
class Column:
    """A metric of the paper.

    Attributes:
        ours: our metric of it.
        factor: from our unit to the paper's.
        digits: shown.
        beside: another column, of our numbers alone, that belongs to it.
    """

    title: str
    ours: str
    factor: float
    digits: int
    beside: str = ""


COLUMNS = {
    "params_B": Column("parameters, B", "nonzero_parameters", 1e-3, 2),
    "tflops": Column("TFLOPs as the paper counts", "paper_tflops", 1.0, 2, "tflops_in_use"),
    "tflops_in_use": Column("TFLOPs of a call in use, ours", "denoiser_tflops", 1.0, 2),
    "fid": Column("FID", "fid", 1.0, 2),
    "clip": Column("CLIP score", "clip_score", 1.0, 4),
    "imagereward": Column("ImageReward", "image_reward", 1.0, 4),
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
    """

    axes: dict[str, str]
    name: str = ""
    paper: dict[str, float] = field(default_factory=dict)
    ours: dict[str, float] = field(default_factory=dict)
    as_dense: set[str] = field(default_factory=set)


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
        first = next((own for own, _ in waiting if axes.items() <= own.items()), None)
        unseeded = {k: v for k, v in first.items() if k != "seed"} if first else {"model": ""}
        same = [entry for entry in waiting if unseeded.items() <= entry[0].items()]
        waiting[:] = [entry for entry in waiting if entry not in same]
        return unseeded, [cell for _, cell in same]

    metrics = metrics_of(rows)
    found = []
    for row in rows:
        mine = take(row.axes)[1]
        found.append(Row(row.axes, "", row.paper, ours(mine, metrics), dense_times(mine, metrics)))
    stated = {axis for row in rows for axis in row.axes} - {"method"}
    while waiting:
        axes, mine = take(waiting[0][0])
        name = named(mine[0].cell, "seed", *stated)
        found.append(Row(axes, name, {}, ours(mine, metrics), dense_times(mine, metrics)))
    return found


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


def tidy(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per row and metric: the axes, metric, paper, ours (none where as dense), difference (ours − paper)."""
    axes = [axis for axis in AXES if axis != "seed"]
    lines = []
    for row in rows:
        for name in metrics_of(rows):
            paper, mine = row.paper.get(name), row.ours.get(name)
            difference = None if paper is None or mine is None else mine - paper
            lines.append([*(row.axes.get(axis, "") for axis in axes), name, paper, mine, difference])
    return pd.DataFrame(lines, columns=[*axes, "metric", "paper", "ours", "difference"])


def shown(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows for people: the axes that tell the paper's rows apart, and a metric in three columns.

    A metric that the paper does not report has one column, ours.
    """
    stated = [axis for axis in AXES if len({row.axes.get(axis) for row in rows if row.paper}) > 1]
    axes = [axis for axis in AXES if axis in ("model", "method", *stated)]
    metrics = metrics_of(rows)
    alone = {COLUMNS[name].beside for name in metrics}
    lines = []
    for row in rows:
        dense = row.axes["method"] == "dense"
        blank = ("pattern", "sparsity", "weighting", "packages") if dense else ()
        line = ["" if axis in blank else row.axes.get(axis, "").replace(PLAIN, "own") for axis in axes]
        if row.name:
            line[axes.index("method")] = row.name
        for name in metrics:
            paper, mine, digits = row.paper.get(name), row.ours.get(name), COLUMNS[name].digits
            nothing = AS_DENSE if name in row.as_dense else NONE
            text = nothing if mine is None else f"{mine:.{digits}f}"
            if name in alone:
                line.append(text)
                continue
            difference = None if paper is None or mine is None else mine - paper
            line += [NONE if paper is None else f"{paper:.{digits}f}", text]
            line.append(NONE if difference is None else f"{difference:+.{digits}f}")
        lines.append(line)
    titles = [
        part
        for name, title in ((name, COLUMNS[name].title) for name in metrics)
        for part in ((title,) if name in alone else (f"{title}: paper", "ours", "Δ"))
    ]
    return axes + titles, lines


def circumstances(cells: Sequence[CellResult], scale: str) -> Iterator[str]:
    """What our numbers are of, a sentence each."""
    if scale == "tiny":
        yield "**Randomly initialised tiny models: these numbers exercise the code and mean nothing.**"

    def all_of(values: Iterable[str]) -> str:
        return " and ".join(dict.fromkeys(values))

    machines = all_of(f"{m['device']}, {m['dtype']}" for m in (cell.provenance["machine"] for cell in cells))
    seeds = all_of(str(seed) for seed in sorted({int(cell.cell.seed) for cell in cells}))
    yield f"Ours: {machines}; {all_of(str(len(cell.prompts)) for cell in cells)} prompts; seed {seeds}."
    yield from calibrations(cells)
    real = all_of(str(cell.provenance["reference"]["count"]) for cell in cells)
    yield f"FID on {all_of(cell.metrics['fid'].unit for cell in cells)} against {real} real images."
    yield f"CLIP score by `{all_of(cell.provenance['evaluator']['name'] for cell in cells)}`."
    yield "docs/paper.md says which choices are ours."
    yield "The paper's: one RTX 4090 with 48 GB (Flux: A100 with 80 GB), 5,000 prompts (ablations: 1,000)."
    if not any("image_reward" in cell.metrics for cell in cells):
        yield "ImageReward was not measured: no model file names its environment (`evaluation.image_reward`)."


def calibrations(cells: Sequence[CellResult]) -> Iterator[str]:
    """How the cells that calibrate did, a sentence for each way."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        spec = cell.provenance.get("spec") or {}
        if sampling := spec.get("sampling"):
            size = "×".join(str(sampling[key]) for key in ("width", "height") if sampling.get(key)) or "own size"
            guidance, sampler = sampling["guidance_scale"], sampling.get("scheduler") or "its own sampler"
            run = f"{sampling['steps']} steps, guidance {guidance:g}, {size}, {sampler}"
            captions = f"captions {spec['prompts'][:12]} (SHA-256)"
            weights = f"α in [{spec['alpha_min']:g}, {spec['alpha_max']:g}], damping {spec['damping']:g}"
            who = f"{cell.cell.model} {cell.cell.method}"
            found.setdefault(f"{run}; {captions}; {weights}", []).append(who)
    for how, several in found.items():
        yield f"Calibrated ({', '.join(dict.fromkeys(several))}): {how}."


def one_line(text: str) -> str:
    """Without line breaks and what cannot be printed, which would end a comment or a row."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def latex(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A booktabs tabular of any text."""
    safe = [[one_line(text) for text in line] for line in (titles, *lines)]
    table = tabulate(safe[1:], safe[0], tablefmt="latex_booktabs", disable_numparse=True)
    table = re.sub(r"(?m)^( *)(?=[\[*])", r"\1{}", table)  # the end of a row takes these for its own arguments
    return table.replace(NONE, "--").replace("Δ", r"$\Delta$") + "\n"


def write_paper(cells: Sequence[CellResult], table: int, out: Path, scale: str = "full", values: Path = VALUES) -> None:
    """paper.md, paper.csv and paper.tex of a finished sweep.

    Args:
        cells: measured ones.
        table: the paper's number of it.
        out: folder, made if missing.
        scale: full or tiny, said in the head.
    """
    rows = join(read_values(table, values), cells)
    out.mkdir(parents=True, exist_ok=True)
    tidy(rows).to_csv(out / "paper.csv", index=False)
    (titles, lines), about = shown(rows), [one_line(sentence) for sentence in circumstances(cells, scale)]
    cellwise = [[one_line(text).replace("|", r"\|") for text in line] for line in lines]
    plain = tabulate(cellwise, titles, tablefmt="pipe", disable_numparse=True)
    title = f"# Table {table} of the OBS-Diff paper (arXiv 2510.06751v3), and ours"
    note = f"Δ is ours − the paper's; {NONE} was not reported, or not measured."
    if any(row.as_dense for row in rows):
        note += f" *{AS_DENSE}*: dense kernels multiply zeros too, so the time is that of the row `dense`."
    (out / "paper.md").write_text("\n\n".join([title, " ".join(about), note, plain]) + "\n")
    comment = "".join(f"% {sentence}\n" for sentence in about)
    (out / "paper.tex").write_text(comment + latex(titles, lines))
