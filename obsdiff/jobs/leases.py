"""One job per GPU on a machine with several: a file lock for each GPU, held until the process ends.

The kernel gives a lock back when its process dies, however it dies. Slurm hands out GPUs itself, so nothing is
leased there. No torch in here: CUDA_VISIBLE_DEVICES must be set before torch starts CUDA.
"""

import os
import re
import sys
import time
from pathlib import Path
from typing import IO

from obsdiff.errors import SpecError
from obsdiff.jobs.user import private_folder
from obsdiff.storage.locks import hold

POLL_SECONDS = 0.5
HELD: list[IO[str]] = []
"""lock files of this process, open as long as it lives"""


def visible() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES, else as many as there are device files."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def folder() -> Path:
    """OBSDIFF_LEASES, which several users may share; by default the user's private folder.

    Raises:
        SpecError: it cannot be made or written to.
    """
    own = os.environ.get("OBSDIFF_LEASES")
    if not own:
        return private_folder()
    try:
        Path(own).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"OBSDIFF_LEASES: {own!r} cannot be made ({error.strerror}); name a folder") from None
    if not os.access(own, os.W_OK | os.X_OK):
        raise SpecError(f"OBSDIFF_LEASES: {own!r} cannot be written to; name another folder")
    return Path(own)


def lease(device: str) -> str | None:
    """Wait for a GPU that no other job holds, and let this process see that one alone.

    Args:
        device: as Source.device; only `cuda` is leased. With an index (`cuda:1`) the user has chosen.

    Returns:
        The GPU as CUDA_VISIBLE_DEVICES now says; None where nothing is leased: another device, a process that holds
        one already, a Slurm job, no GPU to be seen, or a file system without locks (standard error says so).

    Raises:
        SpecError: there is no folder for the locks.
    """
    if device != "cuda" or HELD or os.environ.get("SLURM_JOB_ID"):
        return None
    names = visible()
    if not names:
        return None
    place = folder()
    told = False
    while True:
        for name in names:
            try:
                file = hold(place / f"gpu{re.sub('[^A-Za-z0-9-]', '_', name)}.lock", wait=False)
            except BlockingIOError:
                continue
            if file is None:
                print("GPUs are not shared out between jobs; run one job at a time", file=sys.stderr, flush=True)
                return None
            HELD.append(file)
            os.environ["CUDA_VISIBLE_DEVICES"] = name
            return name
        if not told:
            print(f"waiting for a GPU: other jobs hold {', '.join(names)} ({place})", file=sys.stderr, flush=True)
            told = True
        time.sleep(POLL_SECONDS)
