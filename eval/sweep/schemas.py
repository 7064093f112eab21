"""Config files against the JSON schemas of workflow/schemas, with errors that name key, value and what is allowed."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from obsdiff.errors import SpecError
from obsdiff.typed import is_int, is_number, no_such_key

FOLDER = Path(__file__).parents[2] / "workflow" / "schemas"
LIMITS = {
    "exclusiveMinimum": "> {}",
    "exclusiveMaximum": "< {}",
    "minimum": ">= {}",
    "maximum": "<= {}",
    "type": "of type {}",
}


@cache
def validator(schema: str) -> Any:
    """A validator to which 1.0 is no integer, and infinity and NaN are no numbers."""
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: is_int(value))
    types = types.redefine("number", lambda _, value: is_number(value))
    strict: Any = extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    return strict(yaml.safe_load((FOLDER / schema).read_text(encoding="utf-8")))


def check(record: Mapping[str, Any], schema: str, what: str) -> None:
    """Raise SpecError naming key, value and what is allowed unless `record` follows workflow/schemas/`schema`."""
    errors = sorted(validator(schema).iter_errors(record), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        raise SpecError(f"{what}: {describe(errors[0])}")


def describe(error: ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path)
    schema: Any = error.schema
    instance: Any = error.instance
    kind = str(error.validator)
    if kind == "additionalProperties":
        allowed = sorted(schema["properties"])
        unknown = next(name for name in instance if name not in allowed)
        return str(no_such_key(f"{key + '.' if key else ''}{unknown}", str(unknown), allowed))
    if re.match(r"grid\.(\d+\.)?pattern\.", key) and is_int(instance):
        return f"{key}: {instance!r} is not a pattern; YAML takes an unquoted N:M for a time, write '2:4' in quotes"
    if kind == "pattern" and "description" in schema:
        return f"{key}: {instance!r} is not {schema['description']}"
    if kind in LIMITS:
        limit = LIMITS[kind].format(error.validator_value)
        hint = "; put it in quotes" if error.validator_value == "string" and is_number(instance) else ""
        return f"{key or 'config'}: {instance!r} is not allowed; give one {limit}{hint}"
    return f"{key}: {error.message}" if key else error.message
