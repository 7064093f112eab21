"""Locks on files, which the kernel frees when a process dies, however it dies; without them where there are none."""

import errno
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}
"""errors of flock() where a file system has no locks"""


def hold(path: Path, wait: bool = True) -> IO[str] | None:
    """An open file with an exclusive lock on it, made if missing; the lock ends with the file or the process.

    Args:
        wait: False raises BlockingIOError where another process holds it.

    Returns:
        None where the file system has no locks, or the file cannot be made there; standard error says so.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        print(f"{path}: no lock can be made here ({error.strerror}); going on without", file=sys.stderr, flush=True)
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return file
    except OSError as error:
        file.close()
        if error.errno not in UNSUPPORTED:
            raise
        print(f"{path}: this file system has no locks; going on without", file=sys.stderr, flush=True)
        return None


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file, made if missing, for the block; the kernel frees it when the process dies.

    Args:
        wait: as of hold().

    Yields:
        Whether the lock is held; where it cannot be, the block runs without one.
    """
    with hold(path, wait) or nullcontext() as file:
        yield file is not None
