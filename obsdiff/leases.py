"""One job a GPU on a machine with several: a file lock a GPU, held until the process ends.

The kernel gives a lock back when its process dies, however it dies. Slurm hands out GPUs itself, so nothing is
leased there. No torch in here: CUDA_VISIBLE_DEVICES must be set before torch starts CUDA.
"""

import fcntl
import os
import re
import sys
import time
from pathlib import Path
from typing import IO

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
    """OBSDIFF_LEASES, else a folder of the user's own in XDG_RUNTIME_DIR or /tmp."""
    own = os.environ.get("OBSDIFF_LEASES")
    return Path(own or Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"obsdiff-{os.getuid()}"))


def lease(device: str) -> str | None:
    """Wait for a GPU that no other job holds, and let this process see that one alone.

    Args:
        device: as Source.device; only `cuda` is leased. With an index (`cuda:1`) the user has chosen.

    Returns:
        The GPU as CUDA_VISIBLE_DEVICES now says; None where nothing is leased: another device, a process that holds
        one already, a Slurm job, or no GPU to be seen.
    """
    if device != "cuda" or HELD or os.environ.get("SLURM_JOB_ID"):
        return None
    names = visible()
    if not names:
        return None
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    told = False
    while True:
        for name in names:
            file = (folder() / f"gpu{re.sub('[^A-Za-z0-9-]', '_', name)}.lock").open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            HELD.append(file)
            os.environ["CUDA_VISIBLE_DEVICES"] = name
            return name
        if not told:
            print(f"waiting for a GPU: other jobs hold {', '.join(names)} ({folder()})", file=sys.stderr, flush=True)
            told = True
        time.sleep(POLL_SECONDS)
