"""What the jobs of the workflow depend on beside the files of other jobs, each as a short text that changes with it.

A rule has such texts among its params, so Snakemake runs a job again when a content changed, whatever times and names
of files do. Files are followed through links; large ones are read once (obsdiff/storage/files.py), folders of many
as well.
"""

import ast
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from obsdiff import registry
from obsdiff.storage.files import SETTLED_SECONDS, DamagedFile, cache_folder, hash_of, known_hash, read_json, write_json

MANY = 32
"""files from which the hashes of a list are kept together"""
ABSENT = "absent"
COMMANDS = "COMMANDS"
"""a command line's table of its jobs, of which each job depends on itself alone"""
LIBRARIES = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "diffusers": ("diffusers", "transformers", "tokenizers"),
    "transformers": ("transformers", "tokenizers"),
    "open_clip": ("open_clip_torch",),
    "torchmetrics": ("torchmetrics",),
    "torch_fidelity": ("torch-fidelity",),
    "PIL": ("pillow",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "pandas": ("pandas",),
    "matplotlib": ("matplotlib",),
    "jinja2": ("jinja2",),
    "tabulate": ("tabulate",),
}
"""a module → the distributions whose versions can change what is computed with it"""


def state(what: str, paths: Iterable[str | Path]) -> str:
    """`what` and a hash over names and contents of files; one that is not there counts as such."""
    listed = [Path(path) for path in paths]
    return f"{what} {digest([[str(path), sha] for path, sha in zip(listed, hashes(listed), strict=True)])}"


def digest(record: Any) -> str:
    return hash_of(json.dumps(record).encode())[:16]


def hashes(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of files; those of a long list are kept under sizes, times and inodes of all."""
    if len(paths) < MANY:
        return [known_hash(path) if path.is_file() else ABSENT for path in paths]
    about = [facts_of(path) for path in paths]
    entry = cache_folder() / "lists" / f"{hash_of(chr(0).join(map(os.path.abspath, paths)).encode())[:32]}.json"
    if not os.environ.get("OBSDIFF_VERIFY"):
        with suppress(OSError, DamagedFile, KeyError, TypeError):
            record = read_json(entry)
            if record["files"] == about and len(record["sha256"]) == len(paths):
                return [str(sha) for sha in record["sha256"]]
    found = [known_hash(path) if path.is_file() else ABSENT for path in paths]
    if time.time() - max(max(times[1:3], default=0) for times in about) / 1e9 > SETTLED_SECONDS:
        with suppress(OSError):
            write_json(entry, {"files": about, "sha256": found})
    return found


def facts_of(path: Path) -> list[int]:
    """Size, modification and change time, inode and device of a file, links followed; nothing where it is not there."""
    try:
        about = path.stat()
    except OSError:
        return []
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev]


@cache
def code(*roots: str, without: tuple[str, ...] = ()) -> tuple[str, str]:
    """The state of source files and of the libraries that they import.

    Args:
        roots: a module with all that it imports, or `module:function` with what that function needs of its module.
        without: modules that are imported on the way and do not change the result, and so are left out with what they
            alone import.

    Returns:
        Two params: one over the sources, one that names versions.
    """
    texts, imports = [], []
    for root in roots:
        module, colon, function = root.partition(":")
        if colon:
            tree = needed(Path(module.replace(".", "/")).with_suffix(".py"), function)
            texts.append([root, ast.unparse(tree)])
            imports += registry.imported(tree)
        else:
            imports.append(module)
    files = registry.sources(*imports, without=without)
    for file in files:
        imports += registry.imports_of(registry.ROOT / file)
    names = {name.partition(".")[0] for name in imports}
    distributions = sorted({one for name in names for one in LIBRARIES.get(name, ())})
    versions = ", ".join(f"{name} {version(name)}" for name in distributions)
    return f"code {digest([texts, state('', files)])}", f"libraries {versions}"


def needed(path: Path, function: str) -> ast.Module:
    """The statements of a module that one of its functions needs, itself included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    binding = {name: node for node in tree.body for name in bound(node)}
    kept: dict[str, ast.stmt] = {}
    waiting = [function]
    while waiting:
        name = waiting.pop()
        if name in kept or name not in binding or name == COMMANDS:
            continue
        kept[name] = node = binding[name]
        waiting += used(node)
    statements = [part for node in tree.body if (part := narrowed(node, kept)) is not None]
    return ast.Module(statements, [])


def used(node: ast.stmt) -> set[str]:
    """Names that a top-level statement takes from its module; a function's own arguments and variables are none."""
    inside = list(ast.walk(node))
    names = {inner.id for inner in inside if isinstance(inner, ast.Name)}
    if isinstance(node, ast.FunctionDef):
        names -= {inner.arg for inner in inside if isinstance(inner, ast.arg)}
        names -= {inner.id for inner in inside if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}
        names -= {name for inner in inside if isinstance(inner, ast.Import | ast.ImportFrom) for name in bound(inner)}
    return names


def bound(node: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement gives a value."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name))


def narrowed(node: ast.stmt, kept: Iterable[str]) -> ast.stmt | None:
    """A statement as far as it binds names that are kept."""
    if isinstance(node, ast.ImportFrom):
        names = [alias for alias in node.names if (alias.asname or alias.name) in kept]
        return ast.ImportFrom(node.module, names, node.level) if names else None
    return node if any(name in kept for name in bound(node)) else None


def pictures(folder: Path) -> str:
    """Whether a finished cell's pictures are those of its manifest; those not touched since then are not read.

    The text is the same before the pictures are drawn and after, so that a job which reads them is planned once.
    """
    drawn = "pictures as drawn"
    manifest = folder / "manifest.json"
    try:
        entries, written = read_json(manifest)["pictures"], manifest.stat().st_mtime_ns
        known = {entry["file"]: entry["sha256"] for entry in entries.values()}
    except (OSError, DamagedFile, KeyError, TypeError, AttributeError):
        return drawn
    files = sorted(folder.glob("*.png"))
    touched = [path for path in files if max(facts_of(path)[1:3], default=0) > written]
    changed = [
        [path.name, sha] for path, sha in zip(touched, hashes(touched), strict=True) if sha != known.get(path.name)
    ]
    lost = len(known) - len(files)
    return drawn if not changed and lost <= 0 else f"pictures changed {digest([changed, lost])}"
