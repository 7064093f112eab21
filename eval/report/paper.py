"""A paper's table with its own numbers and ours side by side, and verdicts: paper.md, paper.csv, paper.tex.

What only one side has is shown all the same, as `–` on the other.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from eval.analysis.estimates import Estimate
from eval.analysis.timings import AS_DENSE
from eval.report.paper_rows import COLUMNS, VALUES, Row, join, metrics_of, read_values
from eval.report.verdicts import TOLERANCE, Effect, claims, effect
from eval.results import CellResult
from eval.sweep.cells import AXES, PLAIN

NONE = "–"
VERDICTS = (
    "A row is *reproduced* where the paper's difference to its dense row lies in the 95 % interval of ours (paired "
    f"bootstrap over prompts and seeds), widened by {TOLERANCE:.0%} of the paper's difference; *not reproduced* where "
    "it does not; and it *cannot be decided* where ours has no interval, or one with both the paper's difference and "
    "zero in it."
)
CLAIMS = (
    "That one row is better than another that differs in one thing, as the paper's numbers say: the better one minus "
    "the other. A claim *holds* where the interval of our paired difference excludes zero on the same side, and *does "
    "not hold* where it excludes zero on the other."
)


def tidy(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per row and metric: the axes, metric, paper, ours (none where as dense), difference (ours − paper).

    Then the difference to the dense row on both sides, ours with its interval, and the verdict (verdicts.py).
    """
    axes = [axis for axis in AXES if axis != "seed"]
    lines = []
    for row in rows:
        for name in metrics_of(rows):
            paper, mine = row.paper.get(name), row.ours.get(name)
            difference = None if paper is None or mine is None else mine - paper
            found = effect(row, rows, name) or Effect(None, None)
            ends = found.ours.interval if found.ours else None
            apart = [found.paper, found.ours.value if found.ours else None, *(ends or (None, None)), found.verdict]
            lines.append([*(row.axes.get(axis, "") for axis in axes), name, paper, mine, difference, *apart])
    more = ["paper_to_dense", "ours_to_dense", "ours_to_dense_low", "ours_to_dense_high", "verdict"]
    return pd.DataFrame(lines, columns=[*axes, "metric", "paper", "ours", "difference", *more])


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
            line += [NONE if paper is None else f"{paper:.{digits}f}"]
            if COLUMNS[name].higher_is_better is None:
                line += [text, NONE if difference is None else f"{difference:+.{digits}f}"]
            else:
                line += [interval(row.cells.estimates.get(COLUMNS[name].ours), digits), *judged(row, rows, name)]
        lines.append(line)
    titles = []
    for name in metrics:
        column = COLUMNS[name]
        if name in alone:
            titles.append(column.title)
            continue
        judging = ["Δ"] if column.higher_is_better is None else ["paper − dense", "ours − dense", "verdict"]
        titles += [f"{column.title}: paper", "ours", *judging]
    return axes + titles, lines


def interval(found: Estimate | None, digits: int, sign: str = "") -> str:
    """`27.31 [26.90, 27.75]`"""
    if found is None:
        return NONE
    ends = f" [{found.interval[0]:{sign}.{digits}f}, {found.interval[1]:{sign}.{digits}f}]" if found.interval else ""
    return f"{found.value:{sign}.{digits}f}{ends}"


def judged(row: Row, rows: Sequence[Row], name: str) -> list[str]:
    """The difference to dense on both sides, and the verdict."""
    found, digits = effect(row, rows, name) or Effect(None, None), COLUMNS[name].digits
    paper = NONE if found.paper is None else f"{found.paper:+.{digits}f}"
    return [paper, interval(found.ours, digits, "+"), found.verdict or NONE]


def verdict_table(rows: Sequence[Row]) -> str:
    """The paper's claims and what becomes of them, as Markdown; '' where the table makes none."""
    lines = [
        [
            one.where,
            COLUMNS[one.metric].title,
            f"{one.better} is better than {one.worse}",
            f"{one.paper:+.{COLUMNS[one.metric].digits}f}",
            interval(one.ours, COLUMNS[one.metric].digits, "+"),
            one.verdict,
        ]
        for one in claims(rows)
    ]
    safe = [[one_line(text).replace("|", r"\|") for text in line] for line in lines]
    titles = ["of", "metric", "claim", "paper", "ours", "verdict"]
    return tabulate(safe, titles, tablefmt="pipe", disable_numparse=True) if lines else ""


def counts(verdicts: Sequence[str]) -> str:
    """`3 reproduced, 1 cannot be decided`"""
    found = Counter(verdict for verdict in verdicts if verdict)
    return ", ".join(f"{count} {verdict}" for verdict, count in found.most_common()) or "nothing to compare"


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


def summed_up(rows: Sequence[Row]) -> Iterator[str]:
    """How many verdicts there are of each kind, where the table has metrics that they are about."""
    of_rows = [e.verdict for row in rows for name in metrics_of(rows) if (e := effect(row, rows, name))]
    of_claims = [one.verdict for one in claims(rows)]
    if of_rows or of_claims:
        yield f"**Rows: {counts(of_rows)}. Claims: {counts(of_claims)}.** {VERDICTS}"


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
    parts = [title, " ".join(about), *summed_up(rows), note, plain]
    if claimed := verdict_table(rows):
        parts += ["## The paper's claims", CLAIMS, claimed]
    (out / "paper.md").write_text("\n\n".join(parts) + "\n")
    comment = "".join(f"% {sentence}\n" for sentence in about)
    (out / "paper.tex").write_text(comment + latex(titles, lines))
