"""A JSON schema from a dataclass: its fields, all of them, by their types. Numbers are never negative in a report."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

Schema = dict[str, Any]

PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    float: {"type": "number", "minimum": 0},
    NoneType: {"type": "null"},
}


def schema_of(kind: Any, **instead: Schema) -> Schema:
    """The schema of a dataclass or of a field's type.

    Args:
        instead: field of the dataclass → a schema in place of its type's.

    Raises:
        TypeError: a type that JSON cannot hold.
    """
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return closed({f.name: instead.get(f.name) or schema_of(hints[f.name]) for f in fields(kind)})
    if kind in PLAIN:
        return PLAIN[kind]
    if hasattr(kind, "_fields"):
        return array(list(get_type_hints(kind).values()))
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(part) for part in parts]}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(parts[1])}
    if origin is list or (origin is tuple and parts[1:] == (...,)):
        return {"type": "array", "items": schema_of(parts[0])}
    if origin is tuple:
        return array(parts)
    raise TypeError(f"{kind} has no JSON schema")


def array(kinds: Sequence[Any]) -> Schema:
    """Of one item of each kind."""
    items = [schema_of(kind) for kind in kinds]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def closed(properties: Mapping[str, Schema]) -> Schema:
    """An object with exactly these keys."""
    keys = sorted(properties)
    return {"type": "object", "properties": dict(properties), "required": keys, "additionalProperties": False}
