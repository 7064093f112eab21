"""metrics.json files → results/summary.csv and summary.md: one row a cell."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eval.cells import AXES

HEADLINE = (
    "fid",
    "kid",
    "clip_score",
    "image_reward",
    "recall_at_1",
    "cosine_to_dense",
    "psnr_to_dense",
    "layer_error",
)
COST = (
    "nonzero_parameters",
    "checkpoint_mb",
    "speedup",
    "denoiser_ms",
    "pipeline_ms",
    "pruning_seconds",
    "pruning_memory",
)

Cell = dict[str, Any]


def read_cells(paths: Sequence[Path]) -> list[Cell]:
    return [json.loads(path.read_text()) for path in paths]


def frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row a cell: the axes, then every metric, then the quartiles of what is timed."""
    rows = []
    for cell in cells:
        row = {axis: cell["cell"][axis] for axis in AXES} | {k: m["value"] for k, m in cell["metrics"].items()}
        for name, metric in cell["metrics"].items():
            if "quartiles" in metric:
                row[f"{name}_q1"], row[f"{name}_q3"] = metric["quartiles"]
        rows.append(row)
    return pd.DataFrame(rows)


def formatted(value: float) -> str:
    """Four significant digits at most: 0.03125, 1.5, 1234; what was not measured is left empty."""
    if value != value:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def markdown(cells: Sequence[Cell]) -> str:
    """The quality and the cost of every cell as two tables, the best pruned value of each sparsity in bold."""
    table = by_pattern(frame(cells))
    about = {name: metric for cell in cells for name, metric in cell["metrics"].items()}
    sections = []
    for title, names in (("Quality", HEADLINE), ("Cost", COST)):
        shown = table[axes_shown(table)].astype(str)
        for name in (n for n in names if n in about):
            arrow = {True: " ↑", False: " ↓", None: ""}[about[name]["higher_is_better"]]
            units = " or ".join(dict.fromkeys(c["metrics"][name]["unit"] for c in cells if name in c["metrics"]))
            column = f"{about[name]['title']} ({units}){arrow}"
            best = best_of(table, name, about[name]["higher_is_better"]) if title == "Quality" else set()
            text = table[name].map(formatted)
            shown[column] = [f"**{t}**" if i in best else t for i, t in zip(table.index, text, strict=True)]
        sections.append(f"## {title}\n\n{shown.to_markdown(index=False, disable_numparse=True)}\n")
    if table["seed"].nunique() > 1:
        sections.append(f"## Mean and standard deviation over {table['seed'].nunique()} seeds\n\n{over_seeds(table)}\n")
    return "\n".join(sections)


def by_pattern(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one pattern and sparsity together, where there are several patterns; else as they are."""
    pruned = table[table["sparsity"] > 0]
    if pruned["pattern"].nunique() < 2:
        return table
    order = {pattern: i for i, pattern in enumerate(dict.fromkeys(pruned["pattern"]), 1)}
    place = table["pattern"].map(order).where(table["sparsity"] > 0, 0)
    return table.assign(place=place).sort_values(["model", "place", "sparsity"], kind="stable").drop(columns="place")


def over_seeds(table: pd.DataFrame) -> str:
    """The quality columns as `mean ± standard deviation` of the cells that differ in their seed alone."""
    axes = [a for a in axes_shown(table) if a != "seed"]
    groups = table.groupby(axes, sort=False)[[n for n in HEADLINE if n in table]]
    mean, spread = groups.mean(), groups.std()
    text = (mean.map(formatted) + " ± " + spread.map(lambda s: f"{s:.2g}")).where(mean.notna(), "")
    return text.reset_index().astype(str).to_markdown(index=False, disable_numparse=True)


def axes_shown(table: pd.DataFrame) -> list[str]:
    """Method, sparsity, every axis in which two cells that are else alike differ, and the pattern if there are two."""
    differing = [a for a in AXES if table.groupby([b for b in AXES if b != a])[a].nunique().max() > 1]
    if table.loc[table["sparsity"] > 0, "pattern"].nunique() > 1:
        differing.append("pattern")
    return [a for a in AXES if a in ("method", "sparsity", *differing)]


def best_of(table: pd.DataFrame, name: str, higher: bool | None) -> set[int]:
    """Row indices of the best value among the pruned cells that share model, pattern, sparsity, sampling and seed."""
    pruned = table[(table["sparsity"] > 0) & table[name].notna()]
    groups = pruned.groupby(["model", "pattern", "sparsity", "sampling", "seed"])[name]
    return set((groups.idxmax() if higher else groups.idxmin()).tolist())


def write_tables(cells: Sequence[Cell], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    frame(cells).to_csv(out / "summary.csv", index=False)
    first = cells[0]
    about = first["provenance"]
    own = about.get("fid_features")
    network = f" on the features of `{own['name']}`" if own else ""
    head = (
        f"# Summary\n\n{len(cells)} cells, {len(first['prompts'])} pictures each, {about['reference']['count']} real "
        f"pictures for FID and KID{network}, evaluator `{about['evaluator']['name']}`. The best pruned value of "
        "each pattern and sparsity is bold. Pictures of every cell come from the same prompts and noise. Zeros "
        "(unstructured, N:M) are not skipped by dense kernels: a speed-up of theirs other than 1 is the machine's "
        "noise, as the dense row's own is. Layer errors of heads and neurons are those of the layers that read them."
        "\n\n"
    )
    (out / "summary.md").write_text(head + markdown(cells))
