"""Folders that results are written into: empty, or an earlier result of the same kind; anything else is refused.

A folder that a result is written to holds a hidden lock file, by which it is known as ours even if the writing was
killed, and which keeps a second run out.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile, read_json
from obsdiff.storage.locks import locked

INDEX = "model_index.json"
"""of a diffusers folder"""


@dataclass(frozen=True)
class Kind:
    """What a folder of ours is.

    Attributes:
        title: as an error calls it.
        lock: name of its lock file.
        record: name of the JSON file that it is known by, and
        keys: keys that this file has.
        marks: other files that it is known by.
    """

    title: str
    lock: str
    record: str
    keys: frozenset[str]
    marks: tuple[str, ...] = ()

    def holds(self, folder: Path) -> bool:
        """Whether the folder is one of this kind, whole or not."""
        if any((folder / name).is_file() for name in (self.lock, *self.marks)):
            return True
        try:
            record = read_json(folder / self.record)
        except (OSError, DamagedFile):
            return False
        return isinstance(record, dict) and record.keys() >= self.keys


OF_A_RUN = frozenset({"spec", "base", "layers", "sites"})
PROGRESS = Kind(
    "the progress of a pruning run",
    ".progress.lock",
    "progress.json",
    frozenset({"stamp"}),
    ("package-1.safetensors",),
)
CHECKPOINT = Kind(
    "a pruned checkpoint", ".checkpoint.lock", "manifest.json", OF_A_RUN, (f"progress/{PROGRESS.record}",)
)
CALIBRATION = Kind(
    "a calibration",
    ".calibration.lock",
    "calibration.json",
    frozenset({"content", "model", "sampling"}),
    ("trajectory.json", "statistics-1.safetensors"),
)
EXPORT = Kind("an exported pipeline", ".export.lock", "obsdiff.json", OF_A_RUN)


def require_free(folder: Path, kind: Kind, key: str = "out") -> None:
    """Raise SpecError where a result of that kind must not be written, and say why.

    Refused are a file, a diffusers model's folder and all folders below it, by whatever path or link, a folder that
    holds something that is not of this kind, and one that cannot be made or written to.
    """
    try:
        real = folder.resolve()
        there = next(place for place in (real, *real.parents) if os.path.lexists(place))
        if not there.is_dir():
            raise SpecError(f"{key}: {there} is a file; give a folder")
        own = kind is EXPORT and kind.holds(real)
        model = next((p for p in (real, *real.parents) if (p / INDEX).exists() and not (own and p == real)), None)
        if model is not None:
            what = "is a diffusers model" if model == real else f"lies in the diffusers model {model}"
            raise SpecError(f"{key}: {folder} {what}, which would be overwritten; give another folder")
        if there == real and not kind.holds(real) and (names := sorted(os.listdir(real))):
            shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            raise SpecError(f"{key}: {folder} is not empty ({shown}) and not {kind.title}; give another folder")
        if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise SpecError(f"{key}: {there} cannot be written to; give a folder that can")
    except (OSError, RuntimeError, ValueError) as error:
        raise SpecError(f"{key}: {folder!s} cannot be used as a folder ({error})") from None


@contextmanager
def claimed(folder: Path, kind: Kind, key: str = "out") -> Iterator[None]:
    """A folder made if missing and kept from other runs for the block.

    Raises:
        SpecError: it must not be written to (see require_free), or another run is writing to it.
    """
    require_free(folder, kind, key)
    real = folder.resolve()
    made = not real.exists()
    real.mkdir(parents=True, exist_ok=True)
    lock = real / kind.lock
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, wait=False))
        except BlockingIOError:
            raise SpecError(f"{key}: {folder} is in use by another run; wait for it, or give another folder") from None
        try:
            yield
        except BaseException:
            if made and [*real.iterdir()] == [lock]:  # nothing was written, so nothing is left behind
                lock.unlink()
                real.rmdir()
            raise
