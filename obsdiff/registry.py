"""The extension points: every public file of a folder is an entry, its stem the key.

`package` is a dotted folder such as `obsdiff.methods` or `eval.image_metrics`. Nothing is imported before it is
used; an entry's traits are read without importing it (and torch) at all.
"""

import ast
import os
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

ROOT = Path(__file__).parents[1]
"""the folder that holds the project's packages"""

T = TypeVar("T")


class UnknownEntry(ValueError):
    """A config value names no entry of its folder."""


@cache
def folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"{package} is not a package"
    return Path(next(iter(spec.submodule_search_locations)))


def names(package: str) -> list[str]:
    """Keys of all entries, sorted."""
    place = folder(package)
    return list(listed(place, place.stat().st_mtime_ns))


@lru_cache
def listed(folder: Path, changed: int) -> tuple[str, ...]:
    """Entries of a folder that changed last at that time."""
    return tuple(sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))


def check(package: str, name: str, key: str, *more: str) -> None:
    """Raise UnknownEntry, with the nearest entry and all of them, unless `name` is an entry.

    Args:
        more: other values that the key may have.
    """
    allowed = [*names(package), *more]
    if name not in allowed:
        raise unknown(key, name, allowed)


def unknown(key: str, name: str, allowed: list[str]) -> UnknownEntry:
    near = get_close_matches(str(name), allowed, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return UnknownEntry(f"{key}: {name!r} unknown{hint} ({', '.join(allowed)})")


def load(package: str, name: str) -> ModuleType:
    """The entry's module; an import error inside it escapes."""
    check(package, name, package.rpartition(".")[2])
    return import_module(f"{package}.{name}")


def traits(package: str, name: str, kind: type[T]) -> T:
    """The entry's `TRAITS = Kind(key=literal, ...)`, read without importing it; all defaults if it states none.

    Args:
        kind: a frozen dataclass.

    Raises:
        UnknownEntry: the package has no such entry.
        TypeError: the entry's traits are not literals, or not those of `kind`; the message names its file.
    """
    check(package, name, package.rpartition(".")[2])
    try:
        return kind(**stated_traits(package, name))
    except (ValueError, TypeError) as error:
        path = folder(package) / f"{name}.py"
        raise TypeError(f"{path}: TRAITS must be {kind.__name__}(key=literal, ...): {error}") from None


@cache
def stated_traits(package: str, name: str) -> Mapping[str, Any]:
    """The keywords of an entry's TRAITS, read from its source once per process; ValueError if one is not a literal."""
    for node in ast.parse((folder(package) / f"{name}.py").read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="TRAITS")], value=ast.Call(args=[], keywords=keywords)):
                return MappingProxyType({str(k.arg): ast.literal_eval(k.value) for k in keywords})
    return MappingProxyType({})


@cache
def sources(*modules: str, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Files of the project that these modules import, directly or not, themselves included, relative to its root.

    Entries are loaded by name and so are not among them; imports for type checkers alone do not count.

    Args:
        without: modules that are passed over.
    """
    found: dict[str, None] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        file = None if module in without else source(module)
        if file is not None and file not in found:
            found[file] = None
            waiting += imports_of(file)
    return tuple(sorted(found))


@cache
def source(module: str) -> str | None:
    """A module's file, relative to the project's root; None where it is no module of the project."""
    name = module.replace(".", "/")
    file = f"{name}/__init__.py" if os.path.isdir(f"{ROOT}/{name}") else f"{name}.py"
    return file if os.path.isfile(f"{ROOT}/{file}") else None


def closure(*modules: str) -> list[Path]:
    """sources() as absolute paths, wherever the process was started."""
    return [ROOT / name for name in sources(*modules)]


@cache
def imports_of(file: str) -> tuple[str, ...]:
    """Modules that a source file imports, its path relative to the project's root; read once per process."""
    return tuple(imported(ast.parse((ROOT / file).read_text(encoding="utf-8"))))


def imported(tree: ast.AST) -> list[str]:
    """Modules that a tree imports, and what it takes from them as if it were modules; imports stand in statements."""
    names: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif not isinstance(node, ast.expr) and not for_type_checkers(node):
            names += imported(node)
    return names


def for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
