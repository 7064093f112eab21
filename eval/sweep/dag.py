"""What the jobs of the workflow depend on beside the files of other jobs, each as a short text that changes with it.

A rule has such texts among its params, so Snakemake runs a job again when a content changed, whatever times and names
of files do. Files are followed through links; large ones are read once (obsdiff/storage/files.py), folders of many
as well.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from obsdiff import registry
from obsdiff.storage.cache import SETTLED_SECONDS, entry_of, known_hash
from obsdiff.storage.files import DamagedFile, hash_of, read_json, write_json

MANY = 32
"""files from which the hashes of a list are kept together"""
ABSENT = "absent"
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
version = cache(metadata.version)


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
    entry = entry_of("lists", chr(0).join(map(os.path.abspath, paths)).encode())
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


def facts_of(path: str | Path) -> list[int]:
    """Size, modification and change time, inode and device of a file, links followed; nothing where it is not there."""
    try:
        about = os.stat(path)
    except OSError:
        return []
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev]


@cache
def code(*roots: str, without: tuple[str, ...] = ()) -> tuple[str, str]:
    """The state of source files and of the libraries that they import.

    Args:
        roots: modules, each with all that it imports.
        without: modules that are imported on the way and do not change the result, and so are left out with what they
            alone import.

    Returns:
        Two params: one over the sources, one that names versions.
    """
    imports = list(roots)
    files = registry.sources(*imports, without=without)
    for file in files:
        imports += registry.imports_of(file)
    names = {name.partition(".")[0] for name in imports}
    distributions = sorted({one for name in names for one in LIBRARIES.get(name, ())})
    versions = ", ".join(f"{name} {version(name)}" for name in distributions)
    return f"code {digest(state('', files))}", f"libraries {versions}"


def images(folder: Path) -> str:
    """Whether a finished cell's images are those of its manifest; those not touched since then are not read.

    The text is the same before the images are drawn and after, so that a job which reads them is planned once.
    """
    drawn = "images as drawn"
    manifest = folder / "manifest.json"
    try:
        entries, written = read_json(manifest)["pictures"], manifest.stat().st_mtime_ns
        known = {entry["file"]: entry["sha256"] for entry in entries.values()}
    except (OSError, DamagedFile, KeyError, TypeError, AttributeError):
        return drawn
    names = sorted(name for name in os.listdir(folder) if name.endswith(".png"))
    touched = [folder / name for name in names if max(facts_of(f"{folder}/{name}")[1:3], default=0) > written]
    changed = [
        [path.name, sha] for path, sha in zip(touched, hashes(touched), strict=True) if sha != known.get(path.name)
    ]
    lost = len(known) - len(names)
    return drawn if not changed and lost <= 0 else f"images changed {digest([changed, lost])}"
