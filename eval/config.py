"""A sweep's configuration: config.yaml and the model files it names, checked as a whole before any job starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from eval.cells import Cell, grid
from eval.weights import check_judges
from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.prompts import LARGE, read_prompts, require_file
from obsdiff.spec import Sampling, Source, require

MODELS = Path("config/models")
SCHEMAS = Path(__file__).parents[1] / "workflow" / "schemas"


@dataclass(frozen=True)
class Sweep:
    """A checked configuration.

    Attributes:
        cells: in the order of the tables' rows.
        models: name → the content of config/models/<name>.yaml.
        options: a cell's options, as in its path → the fields of PruneSpec they stand for.
    """

    cells: list[Cell]
    models: dict[str, dict[str, Any]]
    options: dict[str, dict[str, Any]]


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
    if key.startswith("grid.pattern.") and isinstance(instance, int):
        return f"{key}: {instance!r} is no pattern; YAML takes an unquoted N:M for a time, write '2:4' in quotes"
    limits = {"exclusiveMinimum": "> {}", "exclusiveMaximum": "< {}", "minimum": ">= {}", "type": "of type {}"}
    if error.validator in limits:
        limit = limits[error.validator].format(error.validator_value)
        return f"{key}: {instance!r} is not allowed; give one {limit}"
    return f"{key}: {error.message}" if key else error.message


def read_model(name: str) -> dict[str, Any]:
    """config/models/<name>.yaml, with every value checked."""
    path = MODELS / f"{name}.yaml"
    known = sorted(p.stem for p in MODELS.glob("*.yaml"))
    require(path.is_file(), "models", name, f"a file of {MODELS} ({', '.join(known)})")
    record: dict[str, Any] = yaml.safe_load(path.read_text())
    check(record, "model.schema.yaml", str(path))
    try:
        registry.check("obsdiff.models", record["family"], "family")
        Source(**record["source"])
        Sampling(**record["sampling"])
        evaluation, calibration = record["evaluation"], record["calibration"]
        for part, where in (("calibration", calibration), ("evaluation", evaluation)):
            if Path(where["prompts"]).suffix in LARGE:
                require_file(where["prompts"])
                continue
            found = len(read_prompts(where["prompts"]))
            require(where["count"] <= found, f"{part}.count", where["count"], f"in [1, {found}], the prompts there are")
        require(Path(evaluation["reference"]).is_dir(), "evaluation.reference", evaluation["reference"], "a folder")
        check_judges(evaluation)
    except (SpecError, registry.UnknownEntry, TypeError) as error:
        raise SpecError(f"{path}: {error}") from None
    return record


def read_sweep(config: Mapping[str, Any]) -> Sweep:
    """Check a whole configuration.

    Raises:
        SpecError: with the key, the value and what is allowed.
    """
    check(config, "config.schema.yaml", "config")
    models = {name: read_model(name) for name in config["models"]}
    try:
        cells = grid(dict(config))
    except TypeError as error:  # an option that is no field of PruneSpec
        raise SpecError(f"grid.options: {error}") from None
    return Sweep(list(cells), models, {cell.options: options for cell, options in cells.items()})
