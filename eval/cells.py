"""The grid of a sweep: config → cells. A cell is everything that defines one row of the tables.

What a method ignores is set to its neutral value, so that one result has one cell: the dense model has no sparsity,
methods without calibration have no weighting and one package, SparseGPT weights all steps alike.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from itertools import product
from pathlib import Path
from shlex import quote
from typing import Any

from obsdiff import patterns, registry
from obsdiff.errors import SpecError
from obsdiff.spec import PruneSpec, require

PLAIN = "plain"
"""options of a cell that has none"""


@dataclass(frozen=True)
class Cell:
    """The axes of the grid; every value is as in the cell's path."""

    model: str
    method: str
    pattern: str
    sparsity: str
    weighting: str
    packages: str
    options: str
    seed: str

    @property
    def path(self) -> str:
        """`emoji-sd3/obs_diff/unstructured/0.50/log_decrease/packages-4/plain/seed-0`; `2:4` is written `2of4`."""
        head = "/".join((self.model, self.method, self.pattern.replace(":", "of"), self.sparsity, self.weighting))
        return f"{head}/packages-{self.packages}/{self.options}/seed-{self.seed}"

    def dense(self) -> "Cell":
        """The dense cell of the same model and seed."""
        return Cell(self.model, "dense", "unstructured", "0.00", "uniform", "1", PLAIN, self.seed)


AXES = tuple(f.name for f in fields(Cell))
PATTERN = "{model}/{method}/{pattern}/{sparsity}/{weighting}/packages-{packages}/{options}/seed-{seed}"
"""Cell.path as a Snakemake pattern."""


def decimal(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else repr(value)


def option_text(key: str, value: Any) -> str:
    """`compensate=false`; what does not fit into a folder's name is told by its hash."""
    text = "_".join(map(str, value)) if isinstance(value, list | tuple) else json.dumps(value).strip('"')
    plain = re.fullmatch(r"[A-Za-z0-9._-]{1,40}", text)
    return f"{key}={text if plain else cell_hash({'value': value})[:8]}"


def relevant(options: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """The options that change what the method does."""
    whole = PruneSpec(**{**rest, **options}).canonical()
    return {
        key: value
        for key, value in sorted(options.items())
        if PruneSpec(**{**rest, **{k: v for k, v in options.items() if k != key}}).canonical() != whole
    }


def cell_of(model: str, axes: dict[str, Any], pruning: dict[str, Any]) -> tuple[Cell, dict[str, Any]] | None:
    """The canonical cell of one point of the grid and its options; None where the method does not serve the pattern.

    Raises:
        SpecError: a value is not allowed.
    """
    axes = dict(axes)
    options = axes.pop("options", {})
    try:
        registry.check("obsdiff.methods", axes["method"], "method")
        pattern = patterns.resolve(patterns.canonical(axes["pattern"]))
    except registry.UnknownEntry as error:
        raise SpecError(str(error)) from None
    facts = registry.constants("obsdiff.methods", axes["method"])
    if not facts["PRUNES"]:
        return Cell(model, "dense", "unstructured", "0.00", "uniform", "1", PLAIN, str(axes["seed"])), {}
    if pattern.facts["KIND"] not in facts["KINDS"]:
        return None
    if pattern.sparsity is not None:
        axes["sparsity"] = None
    rest = {**pruning, **axes}
    options = relevant(options, rest)
    spec = PruneSpec(**{**rest, **options})
    if not spec.sparsity:
        raise SpecError(f"sparsity: 0 with method {spec.method!r} is the dense model; leave 0 out of the grid")
    return Cell(
        model,
        spec.method,
        spec.pattern,
        decimal(spec.sparsity),
        spec.weighting if facts["WEIGHTED"] else "uniform",
        str(spec.packages if spec.statistic else 1),
        "+".join(option_text(k, v) for k, v in options.items()) or PLAIN,
        str(spec.seed),
    ), options


def points(axes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations; sparsities may be given pattern by pattern, and those of N:M are its own."""
    axes = {"options": [{}]} | axes
    after = ("weighting", "packages", "options", "seed")
    for method, pattern in product(axes["method"], axes["pattern"]):
        amounts = axes["sparsity"]
        mine = amounts.get(pattern, [None]) if isinstance(amounts, dict) else amounts
        for sparsity, *rest in product(mine, *(axes[name] for name in after)):
            yield {"method": method, "pattern": pattern, "sparsity": sparsity} | dict(zip(after, rest, strict=True))


def grid(config: dict[str, Any]) -> dict[Cell, dict[str, Any]]:
    """All cells of a config in its order, each once, with their options; the dense cells are always there.

    Raises:
        SpecError: a value is not allowed, or a method or pattern makes no cell.
    """
    axes = config["grid"]
    found: dict[Cell, dict[str, Any]] = {}
    for model in config["models"]:
        for point in points(axes):
            made = cell_of(model, point, config["pruning"])
            if made is None:
                continue
            cell, options = made
            found[cell.dense()] = {}
            found[cell] = options
    for key in ("method", "pattern"):
        for value in axes[key]:
            name = patterns.canonical(value)
            if not any(getattr(cell, key) == name for cell in found) and set(axes["method"]) != {"dense"}:
                raise SpecError(f"grid.{key}: {value!r} goes with none of the others; leave it out")
    return found


def cell_hash(record: dict[str, Any]) -> str:
    """SHA-256 of a JSON-able record, 16 digits."""
    return sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def named(cell: Cell, *without: str) -> str:
    """What a person calls the cell: `obs_diff 0.50 log_decrease`, `magnitude 2:4`; some axes may be left out."""
    weighted = registry.constants("obsdiff.methods", cell.method)["WEIGHTED"]
    fixed = patterns.resolve(cell.pattern).sparsity is not None
    parts = {
        "method": cell.method,
        "pattern": cell.pattern if cell.pattern != "unstructured" else "",
        "sparsity": cell.sparsity if cell.method != "dense" and not fixed else "",
        "weighting": cell.weighting if weighted else "",
        "packages": f"packages {cell.packages}" if cell.packages not in ("1", "4") else "",
        "options": cell.options if cell.options != PLAIN else "",
        "seed": f"seed {cell.seed}" if cell.seed != "0" else "",
    }
    return " ".join(text for axis, text in parts.items() if text and axis not in without)


def parse(path: str | Path) -> Cell:
    """Cell.path back into a cell."""
    parts = Path(path).parts[-len(AXES) :]
    require(len(parts) == len(AXES), "cell", str(path), f"a path {PATTERN}")
    values = dict(zip(AXES, parts, strict=True))
    values = {k: v.removeprefix("packages-").removeprefix("seed-") for k, v in values.items()}
    return Cell(**values | {"pattern": patterns.canonical(values["pattern"])})


def axes_of(cell: Cell) -> dict[str, Any]:
    """The axes as a table's columns: sparsity a float, the seed an integer."""
    record: dict[str, Any] = asdict(cell)
    return record | {"sparsity": float(cell.sparsity), "seed": int(cell.seed)}


def cell_path(record: dict[str, Any]) -> str:
    """The path of a metrics.json record's cell."""
    axes = record["cell"] | {"sparsity": decimal(record["cell"]["sparsity"]), "seed": str(record["cell"]["seed"])}
    return Cell(**axes).path


def flags(values: dict[str, Any]) -> Iterator[str]:
    """A mapping as command-line options, quoted for a shell; None is left out."""
    for key, value in values.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            yield option if value else f"--no-{option[2:]}"
        elif isinstance(value, dict | list | tuple):
            several = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
            if several:
                yield " ".join([option, *(quote(str(part)) for part in several)])
        elif value is not None:
            yield f"{option} {quote(str(value))}"
