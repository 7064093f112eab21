"""Files that a later run trusts: hashed, and written beside and renamed. No torch in here.

A reader never sees half a file: every writer uses `replacing()` or a function built on it.
"""

import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

CHUNK = 1 << 22
SIDE = ".tmp"
"""suffix of a file that is being written; one that stays belongs to a killed process"""
SIDE_NAME = re.compile(rf"\..*-(?P<machine>[0-9a-f]{{8}})-(?P<process>[0-9]+)-\w+{re.escape(SIDE)}.*")
ABANDONED_SECONDS = 86400
LOOKED: set[str] = set()
"""folders in which this process has looked for abandoned side files"""


class DamagedFile(Exception):
    """A file cannot be read as what it should be; the message names it and says why."""


def hash_of(data: bytes) -> str:
    """SHA-256, 64 hexadecimal digits."""
    return sha256(data).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, symbolic links followed; read anew every time."""
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def code_identity(files: Iterable[Path], libraries: Iterable[str]) -> str:
    """SHA-256 over source files and the versions of libraries: what made a result."""
    digest = sha256(json.dumps([version(name) for name in libraries]).encode())
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache
def machine() -> str:
    """Eight hexadecimal digits for what a process id is unique in: this boot, this container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        return hash_of(f"{boot.read_text()}{os.readlink('/proc/self/ns/pid')}".encode())[:8]
    return hash_of(os.uname().nodename.encode())[:8]


def remove_abandoned(folder: Path) -> None:
    """Remove side files that killed processes left in a folder; each process looks once.

    A file is abandoned when the process in its name no longer runs here, or after a day where it was another machine.
    """
    if str(folder) in LOOKED:
        return
    LOOKED.add(str(folder))
    with suppress(OSError):
        for side in list(folder.glob(f".*{SIDE}*")):
            found = SIDE_NAME.fullmatch(side.name)
            if found and found["machine"] == machine():
                over = not runs(int(found["process"]))
            else:
                over = found is not None and time.time() - side.stat().st_mtime > ABANDONED_SECONDS
            if over:
                side.unlink(missing_ok=True)


def runs(process: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: renamed onto it when the block ends, removed where it fails.

    The folder is made if missing. The file's mode follows the umask, whatever wrote it.

    Raises:
        OSError: of the block, naming `path` where it names no file, as that of a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    side = Path(tempfile.mktemp(SIDE, f".{path.name[:40]}-{machine()}-{os.getpid()}-", path.parent))
    with side.open("xb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
    try:
        yield side
        side.chmod(mode)
        side.replace(path)
    except OSError as error:
        if error.filename in (None, str(side)):
            error.filename = str(path)
        raise
    finally:
        side.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as side:
        side.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole file in UTF-8 or nothing."""
    write_bytes(path, text.encode())


def write_json(path: Path, record: Any, **options: Any) -> None:
    """Write a JSON file, or nothing.

    Args and errors: as json_text().
    """
    write_text(path, json_text(record, path, **options))


def json_text(record: Any, path: Path, **options: Any) -> str:
    """A record as JSON that is to be written to `path`.

    Args:
        options: of json.dumps.

    Raises:
        ValueError: a number is NaN or infinite; JSON has no such number. The message says which key holds it.
    """
    try:
        return json.dumps(record, allow_nan=False, **options) + "\n"
    except ValueError:
        raise ValueError(f"{path}: {not_finite(record) or 'a value'} is not a finite number") from None


def not_finite(record: Any, key: str = "") -> str | None:
    """The first key under which a record holds NaN or infinity, such as `metrics.fid.value`."""
    if isinstance(record, float):
        return None if math.isfinite(record) else key
    parts = (
        record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list | tuple) else ()
    )
    found = (not_finite(value, f"{key}.{name}" if key else str(name)) for name, value in parts)
    return next((name for name in found if name is not None), None)


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: it is not there.
        DamagedFile: it is empty, cut, of another encoding, holds NaN, infinity or a key twice, or is not JSON for
            another reason.
    """
    return parsed_json(path.read_bytes(), path)


def parsed_json(data: bytes, path: Path) -> Any:
    """read_json() of bytes that were read from `path`."""
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_constant=refuse, parse_float=finite, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path}: not JSON ({error if data else 'it is empty'})") from None


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        refuse(text)
    return number


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """A JSON-able record with its own digest as `sha256`, by which sealed() tells whether it was edited."""
    return record | {"sha256": digest_of(record)}


def sealed(record: Mapping[str, Any]) -> bool:
    """Whether a record is as seal() made it."""
    return record.get("sha256") == digest_of(record)


def digest_of(record: Mapping[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hash_of(json.dumps(content, sort_keys=True).encode())


def made_anew(path: Path, why: object) -> None:
    """Say on standard error that a file which a former run left is damaged and is made again."""
    print(f"{path} is damaged ({why}); making it again", file=sys.stderr, flush=True)
