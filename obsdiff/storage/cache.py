"""Small records in the user's cache folder, of what takes long to find out again. No torch in here.

A cache that cannot be read or written costs time only. A hash of a large file is kept under its path, size, times and
inode, so that a model of many gigabytes is read once.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from obsdiff.storage.files import DamagedFile, file_hash, hash_of, read_json, seal, sealed, write_json

REMEMBERED_BYTES = 1 << 20
"""size from which a file's hash is kept; smaller files are read every time"""
SETTLED_SECONDS = 2.0
"""age from which a file's times are trusted: a younger one could change again within their resolution"""


def cache_folder() -> Path:
    """OBSDIFF_CACHE, by default obsdiff in the user's cache folder."""
    own = os.environ.get("OBSDIFF_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(own) if own else Path(base, "obsdiff")


def entry_of(kind: str, key: bytes) -> Path:
    """The file of a key."""
    return cache_folder() / kind / f"{hash_of(key)[:32]}.json"


def kept(kind: str, key: bytes) -> dict[str, Any] | None:
    """The record that keep() wrote; None where there is none, or it was damaged or edited."""
    with suppress(OSError, DamagedFile):
        record = read_json(entry_of(kind, key))
        if isinstance(record, dict) and sealed(record):
            return record
    return None


def keep(kind: str, key: bytes, record: dict[str, Any]) -> None:
    """Write a JSON-able record under a key, if it can be written."""
    with suppress(OSError):
        write_json(entry_of(kind, key), seal(record))


def known_hash(path: Path) -> str:
    """file_hash(), taken from the cache where a large file has not changed since it was last read.

    A file has changed when its real path, size, modification time, change time or inode has. OBSDIFF_VERIFY=1 reads
    every file again.
    """
    real = path.resolve()
    about = real.stat()
    if about.st_size < REMEMBERED_BYTES:
        return file_hash(real)
    times = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev]
    known = None if os.environ.get("OBSDIFF_VERIFY") else kept("hashes", os.fsencode(real))
    if known is not None and known["file"] == times:
        return str(known["content"])
    found = file_hash(real)
    if time.time() - max(about.st_mtime, about.st_ctime) > SETTLED_SECONDS:
        keep("hashes", os.fsencode(real), {"path": str(real), "file": times, "content": found})
    return found
