"""Which snakemake runs of a working directory are alive, so that the locks of a killed one block no other.

Snakemake's locks are files without an owner, and stay behind when it is killed. A run therefore holds a shared lock of
the kernel for as long as it lives. Who gets the exclusive one is alone, and what locks there are then are of the dead.
"""

import fcntl
import sys
from pathlib import Path
from typing import TextIO

from obsdiff.errors import SpecError
from obsdiff.storage.locks import UNSUPPORTED

_held: list[TextIO] = []
"""open files whose locks last until the process ends; its children do not inherit them"""


def join(folder: Path) -> None:
    """Be one of the live runs of a working directory; whoever is the only one removes the locks of dead ones.

    Snakemake writes its own locks after this, so a process that is alone here cannot remove those of a live run.
    Where the folder cannot be written or has no locks, nothing is removed.

    Args:
        folder: `.snakemake`.

    Raises:
        SpecError: the locks of another live run shall be removed.
    """
    try:
        folder.mkdir(exist_ok=True)
        file = (folder / "live.lock").open("a")
    except OSError:
        return
    _held.append(file)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if "--unlock" in sys.argv:
                raise SpecError(
                    "another snakemake is running in this folder; wait for it, or stop it before --unlock"
                ) from None
            print("Another snakemake is running in this folder.", file=sys.stderr, flush=True)
        else:
            remove_locks(folder / "locks")
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def remove_locks(folder: Path) -> None:
    stale = [path for path in folder.glob("*.lock") if path.is_file()]
    for path in stale:
        path.unlink(missing_ok=True)
    if stale:
        print("The last run here was killed; going on where it stopped.", file=sys.stderr, flush=True)
