"""The grid of a sweep: config → cells. A cell is everything that defines one row of the tables.

What a method ignores is set to its neutral value, so that one result has one cell: the dense model has no sparsity,
methods without calibration have no weighting and one package, SparseGPT weights all steps alike.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.spec import PruneSpec, require


@dataclass(frozen=True)
class Cell:
    """The axes of the grid; every value is as in the cell's path."""

    model: str
    method: str
    pattern: str
    sparsity: str
    weighting: str
    packages: str
    seed: str

    @property
    def path(self) -> str:
        """`emoji-sd3/obs_diff/unstructured/0.50/log_decrease/packages-4/seed-0`"""
        head = "/".join((self.model, self.method, self.pattern, self.sparsity, self.weighting))
        return f"{head}/packages-{self.packages}/seed-{self.seed}"

    def dense(self) -> "Cell":
        """The dense cell of the same model and seed."""
        return Cell(self.model, "dense", "unstructured", "0.00", "uniform", "1", self.seed)


AXES = tuple(f.name for f in fields(Cell))
PATTERN = "{model}/{method}/{pattern}/{sparsity}/{weighting}/packages-{packages}/seed-{seed}"
"""Cell.path as a Snakemake pattern."""


def decimal(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else repr(value)


def cell_of(model: str, axes: dict[str, Any], pruning: dict[str, Any]) -> Cell:
    """The canonical cell of one point of the grid; raises SpecError where a value is not allowed."""
    spec = PruneSpec(**{**pruning, **axes, "sparsity": axes["sparsity"] if axes["method"] != "dense" else 0.0})
    facts = spec.facts
    if spec.sparsity == 0 and facts["PRUNES"]:
        raise SpecError(f"sparsity: 0 with method {spec.method!r} is the dense model; leave 0 out of the grid")
    if not facts["PRUNES"]:
        return Cell(model, "dense", "unstructured", "0.00", "uniform", "1", str(spec.seed))
    return Cell(
        model,
        spec.method,
        spec.pattern,
        decimal(spec.sparsity),
        spec.weighting if facts["WEIGHTED"] else "uniform",
        str(spec.packages if facts["STATISTIC"] else 1),
        str(spec.seed),
    )


def grid(config: dict[str, Any]) -> list[Cell]:
    """All cells of a config in its order, each once; the dense cell of every model and seed is always there."""
    axes = config["grid"]
    found: dict[Cell, None] = {}
    for model in config["models"]:
        for values in product(*axes.values()):
            cell = cell_of(model, dict(zip(axes, values, strict=True)), config["pruning"])
            found[cell.dense()] = None
            found[cell] = None
    return list(found)


def cell_hash(record: dict[str, Any]) -> str:
    """SHA-256 of a JSON-able record, 16 digits."""
    return sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def named(cell: Cell) -> str:
    """What a person calls the cell: `obs_diff 0.50 log_decrease`, `magnitude 0.50`."""
    parts = [cell.method] if cell.method == "dense" else [cell.method, cell.sparsity]
    parts += [cell.weighting] if registry.constants("obsdiff.methods", cell.method)["WEIGHTED"] else []
    parts += [f"packages {cell.packages}"] if cell.packages not in ("1", "4") else []
    return " ".join(parts + ([f"seed {cell.seed}"] if cell.seed != "0" else []))


def parse(path: str | Path) -> Cell:
    """Cell.path back into a cell."""
    parts = Path(path).parts[-len(AXES) :]
    require(len(parts) == len(AXES), "cell", str(path), f"a path {PATTERN}")
    values = dict(zip(AXES, parts, strict=True))
    return Cell(**{k: v.removeprefix("packages-").removeprefix("seed-") for k, v in values.items()})


def axes_of(cell: Cell) -> dict[str, Any]:
    """The axes as a table's columns: sparsity a float, packages and seed integers."""
    record: dict[str, Any] = asdict(cell)
    return record | {"sparsity": float(cell.sparsity), "packages": int(cell.packages), "seed": int(cell.seed)}


def flags(values: dict[str, Any]) -> Iterator[str]:
    """A mapping as command-line options; None is left out."""
    for key, value in values.items():
        if isinstance(value, bool):
            yield f"--{'' if value else 'no-'}{key.replace('_', '-')}"
        elif value is not None:
            yield f"--{key.replace('_', '-')} {value}"
