"""A sweep's configuration: config.yaml and the model files it names, checked as a whole before any job starts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from eval.cells import Cell
from eval.grid import Overrides, grid, models_of, sampling_of
from eval.scale import shrunk, shrunk_model
from eval.weights import check_judges
from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.prompts import LARGE, read_prompts, require_file
from obsdiff.spec import Source, require

MODELS = Path("config/models")
SCHEMAS = Path(__file__).parents[1] / "workflow" / "schemas"


@dataclass(frozen=True)
class Sweep:
    """A checked configuration.

    Attributes:
        cells: in the order of the tables' rows.
        models: name → the content of config/models/<name>.yaml.
        options: a cell's options, as in its path → the fields of PruneSpec they stand for.
        sampling: the same of its sampling → fields of Sampling.
        calibration: the same of its calibration → fields of the model file's calibration, and `sampling`.
    """

    cells: list[Cell]
    models: dict[str, dict[str, Any]]
    options: dict[str, dict[str, Any]]
    sampling: dict[str, dict[str, Any]]
    calibration: dict[str, dict[str, Any]]


def check(record: Mapping[str, Any], schema: str, what: str) -> None:
    """Raise SpecError naming key, value and what is allowed unless `record` follows workflow/schemas/`schema`."""
    validator = Draft202012Validator(yaml.safe_load((SCHEMAS / schema).read_text()))
    errors = sorted(validator.iter_errors(record), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        raise SpecError(f"{what}: {describe(errors[0])}")


def describe(error: ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path)
    schema: Any = error.schema
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        allowed = sorted(schema["properties"])
        unknown = next(name for name in instance if name not in allowed)
        near = get_close_matches(str(unknown), allowed, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key + '.' if key else ''}{unknown}: no such key; {hint}({', '.join(allowed)})"
    if re.match(r"grid\.(\d+\.)?pattern\.", key) and isinstance(instance, int):
        return f"{key}: {instance!r} is no pattern; YAML takes an unquoted N:M for a time, write '2:4' in quotes"
    limits = {"exclusiveMinimum": "> {}", "exclusiveMaximum": "< {}", "minimum": ">= {}", "type": "of type {}"}
    if error.validator in limits:
        limit = limits[error.validator].format(error.validator_value)
        return f"{key}: {instance!r} is not allowed; give one {limit}"
    return f"{key}: {error.message}" if key else error.message


def results_of(config: Mapping[str, Any]) -> str:
    """The folder of all that a sweep writes: what tiny models gave never lies among real results."""
    results: str = config["results"]
    return f"{results}/tiny" if config.get("scale") == "tiny" else results


def read_record(name: str) -> dict[str, Any]:
    """config/models/<name>.yaml; what it leaves out is as in the model that it is `like`."""
    path = MODELS / f"{name}.yaml"
    known = sorted(p.stem for p in MODELS.glob("*.yaml"))
    require(path.is_file(), "models", name, f"a file of {MODELS} ({', '.join(known)})")
    record: dict[str, Any] = yaml.safe_load(path.read_text())
    if other := record.pop("like", None):
        for key, value in read_record(other).items():
            own = record.get(key)
            record[key] = value | own if isinstance(own, dict) else value if own is None else own
    return record


def read_model(name: str, files: bool = True) -> dict[str, Any]:
    """The content of config/models/<name>.yaml, every value checked.

    Args:
        files: whether the prompts and pictures that it names must be there.
    """
    path = MODELS / f"{name}.yaml"
    record = read_record(name)
    check(record, "model.schema.yaml", str(path))
    try:
        registry.check("obsdiff.models", record["family"], "family")
        Source(**record["source"])
        sampling_of(record)
        if files:
            for part in ("calibration", "evaluation"):
                check_prompts(part, record[part])
            check_reference(record["evaluation"]["reference"])
            check_judges(record["evaluation"])
    except (SpecError, registry.UnknownEntry, TypeError) as error:
        raise SpecError(f"{path}: {error}") from None
    return record


def check_prompts(part: str, where: Mapping[str, Any]) -> None:
    """The file is there and, where counting is quick, holds enough."""
    require_file(where["prompts"])
    if Path(where["prompts"]).suffix not in LARGE:
        found = len(read_prompts(where["prompts"]))
        require(where["count"] <= found, f"{part}.count", where["count"], f"in [1, {found}], the prompts there are")


def check_reference(folder: str) -> None:
    hint = "; data/README.md says where it comes from" if Path(folder).parts[0] == "data" else ""
    require(Path(folder).is_dir(), "evaluation.reference", folder, f"a folder{hint}")


def read_sweep(config: Mapping[str, Any]) -> Sweep:
    """Check a whole configuration.

    Raises:
        SpecError: with the key, the value and what is allowed.
    """
    check(config, "config.schema.yaml", "config")
    full = config.get("scale", "full") == "full"
    models = {name: read_model(name, full) for name in models_of(config)}
    try:
        cells = grid(config, models)
    except TypeError as error:  # an option that is no field of PruneSpec
        raise SpecError(f"grid.options: {error}") from None
    texts: dict[str, dict[str, dict[str, Any]]] = {axis: {} for axis in Overrides._fields}
    for cell, overrides in cells.items():
        for axis, values in overrides._asdict().items():
            texts[axis][getattr(cell, axis)] = values
        if (pruned := cell.pruned_as()) != cell:
            texts["sampling"][pruned.sampling] = {}
            texts["calibration"][pruned.calibration] = {
                key: value for key, value in overrides.calibration.items() if key != "sampling"
            }
    if full:
        for cell, overrides in cells.items():
            if overrides.calibration.keys() & {"prompts", "count"}:
                check_prompts("grid.calibration", models[cell.model]["calibration"] | overrides.calibration)
        return Sweep(list(cells), models, **texts)
    made = {name: shrunk_model(model, results_of(config)) for name, model in models.items()}
    return Sweep(list(cells), made, **shrunk(texts))
