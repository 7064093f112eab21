"""Dataclasses whose fields hold what their annotations say, told by the field's name where one does not."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from obsdiff.errors import SpecError

WORDS = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    NoneType: "left out",
    tuple: "a list of {}",
    dict: "a mapping of names to {}",
}
PLURAL = {str: "texts", float: "finite numbers"}
LARGEST = 1e300
"""of a number; what is larger overflows in the first product"""


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    """Raise SpecError with the key, its value and what is allowed unless `ok`."""
    if not ok:
        raise SpecError(f"{key}: {value!r} is not {allowed}")


def is_int(value: object) -> bool:
    """A whole number; neither a bool nor 1.0."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """A finite integer or float; no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def check_types(record: Any) -> None:
    """Check every field of a dataclass against its annotation; a list in a tuple's place becomes one.

    Raises:
        SpecError: for the first field that holds something else.
    """
    cls: Any = type(record)
    for name, kind in hints(cls).items():
        value = getattr(record, name)
        if get_origin(kind) is tuple and isinstance(value, list):
            value = tuple(value)
            object.__setattr__(record, name, value)
        if not fits(value, kind):
            hint = "; put it in quotes" if is_number(value) and fits("", kind) and not fits(0, kind) else ""
            require(False, name, value, described(kind) + hint)


@cache
def hints(cls: Any) -> dict[str, Any]:
    """Field → annotation."""
    found = get_type_hints(cls)
    return {field.name: found[field.name] for field in fields(cls)}


def fits(value: object, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) and fits(v, inner[1]) for k, v in value.items())
    if kind in (int, float):
        return is_int(value) if kind is int else is_number(value)
    return isinstance(value, kind)


def described(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return " or ".join(described(one) for one in inner)
    if origin in (tuple, dict):
        item = inner[0 if origin is tuple else 1]
        return WORDS[origin].format(PLURAL.get(item, "values"))
    return WORDS.get(kind, f"a {kind.__name__}")


def made(cls: Any, values: Mapping[str, Any], key: str) -> Any:
    """A dataclass from a hand-written mapping.

    Args:
        key: of the mapping; it precedes a field's name in errors.

    Raises:
        SpecError: a field is unknown, or its value not allowed.
    """
    known = sorted(hints(cls))
    for name in values:
        if name not in known:
            raise no_such_key(f"{key}.{name}", str(name), known)
    try:
        return cls(**values)
    except SpecError as error:
        raise SpecError(f"{key}.{error}") from None


def no_such_key(key: str, name: str, allowed: list[str]) -> SpecError:
    """The error of an unknown key, with the nearest known one and all of them."""
    near = get_close_matches(name, allowed, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return SpecError(f"{key}: no such key; {hint}({', '.join(allowed)})")
