"""A cell: everything that defines one row of the tables, its path, its name, its hash."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from obsdiff import methods, patterns
from obsdiff.typed import require

PLAIN = "plain"
"""options, sampling and calibration of a cell that has none of its own"""
MODEL = "model"
"""`calibration: {sampling: model}`: calibrated with the model file's sampling, whatever the cell's in use"""
PINNED = f"sampling={MODEL}"
"""that, in a cell's path"""


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
    sampling: str
    calibration: str
    seed: str

    @property
    def path(self) -> str:
        """The values in a row, the last five after their axis' name; `2:4` is written `2of4`.

        `emoji-sd3/obs_diff/2of4/0.50/log_decrease/packages-4/options-plain/sampling-steps=15/calibration-plain/seed-0`
        """
        values = asdict(self) | {"pattern": self.pattern.replace(":", "of")}
        return PATTERN.format(**values)

    @property
    def amount(self) -> float:
        """The sparsity as a number."""
        return float(self.sparsity)

    def dense(self) -> "Cell":
        """The dense cell of the same model, sampling and seed."""
        return Cell(self.model, "dense", "unstructured", "0.00", "uniform", "1", PLAIN, self.sampling, PLAIN, self.seed)

    def pruned_as(self) -> "Cell":
        """The cell that prunes this one's model: itself, or the one of plain sampling that it is pinned to."""
        *rest, last = self.calibration.split("+")
        pinned = last == PINNED
        return replace(self, sampling=PLAIN, calibration="+".join(rest) or PLAIN) if pinned else self


AXES = tuple(f.name for f in fields(Cell))
PREFIXED = AXES[AXES.index("packages") :]
PATTERN = "/".join(f"{axis}-{{{axis}}}" if axis in PREFIXED else f"{{{axis}}}" for axis in AXES)
"""Cell.path as a Snakemake pattern."""


def decimal(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else repr(value)


def text_of(values: dict[str, Any], shared: Collection[str] = ()) -> str:
    """Options as an axis' value: `bias=true+group=row`, `plain` where there are none.

    A file is told by its name, a mapping within by `sampling.steps=15` or `extra.true_cfg_scale=4`, what does not fit
    into a folder's name by its hash.

    Args:
        shared: names that several files have; their paths' hash is added.
    """
    parts = []
    for key, value in values.items():
        if isinstance(value, dict) and key in ("sampling", "extra"):
            parts += [f"{key}.{text_of({inner: v})}" for inner, v in value.items()]
            continue
        text = "_".join(map(str, value)) if isinstance(value, list | tuple) else json.dumps(value).strip('"')
        text = file_name(value, shared) if key == "prompts" else text.replace("+", "p")
        plain = re.fullmatch(r"[A-Za-z0-9._-]{1,40}", text)
        parts.append(f"{key}={text if plain else cell_hash({'value': value})[:8]}")
    return "+".join(parts) or PLAIN


def file_name(path: str, shared: Collection[str]) -> str:
    """`train.csv`; `train-1a2b3c4d.csv` where several files of a sweep have that name."""
    found = Path(path)
    return f"{found.stem}-{cell_hash({'path': path})[:8]}{found.suffix}" if found.name in shared else found.name


def cell_hash(record: dict[str, Any]) -> str:
    """SHA-256 of a JSON-able record, 16 digits."""
    return sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def chosen(cell: Cell, axis: str) -> bool:
    """Whether `weighting` or `packages` of a cell is a choice: used by the method, which has no value of its own."""
    traits = methods.traits(cell.method)
    return traits.uses(axis) and getattr(cell, axis) != str(traits.defaults.get(axis))


def named(cell: Cell, *without: str) -> str:
    """The cell's label: `obs_diff 0.50 log_decrease`, `magnitude 2:4`; some axes may be left out."""
    fixed = patterns.resolve(cell.pattern).sparsity is not None
    parts = {
        "method": cell.method,
        "pattern": cell.pattern if cell.pattern != "unstructured" else "",
        "sparsity": cell.sparsity if cell.method != "dense" and not fixed else "",
        "weighting": cell.weighting if chosen(cell, "weighting") else "",
        "packages": f"packages {cell.packages}" if chosen(cell, "packages") and cell.packages != "4" else "",
        "options": cell.options if cell.options != PLAIN else "",
        "sampling": cell.sampling if cell.sampling != PLAIN else "",
        "calibration": f"calibrated {cell.calibration}" if cell.calibration != PLAIN else "",
        "seed": f"seed {cell.seed}" if cell.seed != "0" else "",
    }
    return " ".join(text for axis, text in parts.items() if text and axis not in without)


def parse(path: str | Path) -> Cell:
    """Cell.path back into a cell."""
    parts = Path(path).parts[-len(AXES) :]
    require(len(parts) == len(AXES), "cell", str(path), f"a path {PATTERN}")
    values = dict(zip(AXES, parts, strict=True))
    values = {k: v.removeprefix(f"{k}-") if k in PREFIXED else v for k, v in values.items()}
    return Cell(**values | {"pattern": patterns.canonical(values["pattern"])})


def axes_of(cell: Cell) -> dict[str, Any]:
    """The axes as a table's columns: sparsity a float, the seed an integer."""
    record: dict[str, Any] = asdict(cell)
    return record | {"sparsity": float(cell.sparsity), "seed": int(cell.seed)}


def listed(files: Iterable[Path]) -> list[Path]:
    """The files, a .txt file among them standing for those that it lists, one per line."""
    found: list[Path] = []
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines() if file.suffix == ".txt" else [str(file)]
        found += [Path(line) for line in lines]
    return found


def cell_of_axes(axes: Mapping[str, Any]) -> Cell:
    """axes_of() back into a cell."""
    return Cell(**{**axes, "sparsity": decimal(axes["sparsity"]), "seed": str(axes["seed"])})


def flags(values: dict[str, Any]) -> Iterator[str]:
    """A mapping as command-line arguments, not quoted for any shell; None is left out."""
    for key, value in values.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            yield option if value else f"--no-{option[2:]}"
        elif isinstance(value, dict | list | tuple):
            several = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
            if several:
                yield option
                yield from map(str, several)
        elif value is not None:
            yield option
            yield str(value)
