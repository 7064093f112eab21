"""Short jobs of one sweep handed to a fork server that keeps torch and diffusers imported (CPU only).

Importing the libraries takes longer than many a job. With OBSDIFF_WARM set, `run` hands its command to a server
(obsdiff/jobs/forkserver.py, started by the first client), which forks a child with the same arguments, environment,
working directory, umask, limits and standard streams. A client that dies takes its child with it.

A server serves those alone whom it cannot tell from the one who started it: the value of OBSDIFF_WARM, the user and
groups, the interpreter, its installed packages, and what libraries read when they are imported are all in its socket's
name. Without the variable, or where anything about the server fails before the command has begun, the command
runs in its own process.
"""

import array
import atexit
import fcntl
import gc
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from obsdiff.errors import SpecError
from obsdiff.jobs import forkserver
from obsdiff.jobs.user import private_folder, settle

START_SECONDS, READY_SECONDS = 20.0, 180.0
"""for which a client waits for the socket of a new server, and then for its imports"""
AT_IMPORT = re.compile("HF_|HUGGINGFACE|TORCH|PYTORCH|LD_|PYTHON|DIFFUSERS_|TRANSFORMERS_|OPENCLIP|HOME$|XDG_")
"""environment variables that the loader and the libraries read once; threads are not among them, jobs set their own"""
SERVER = Path(forkserver.__file__)
Main = Callable[[list[str]], int]


def run(module: str, main: Main, argv: list[str]) -> int:
    """Run `main(argv)`, found again as `module.main` by the server, warm where that is asked for and possible."""
    settle()
    address = os.environ.get("OBSDIFF_WARM")
    connection = handed_over(address, module, argv) if address else None
    if connection is None:
        collect_less()
        return main(argv)
    with connection:
        connection.settimeout(None)
        answer = connection.makefile().readline()
    if not answer.strip().isdigit():
        raise SystemExit("error: the worker ended without an answer; it was killed, or ran out of memory")
    return int(answer)


def collect_less() -> None:
    """Look for garbage seldom, and not when the process ends.

    With all that torch and diffusers import, which is no garbage, that took a quarter of a short command's time.
    """
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)


def handed_over(address: str, module: str, argv: list[str]) -> socket.socket | None:
    """A connection to a server's child that has begun this command; None where there is none, for whatever reason."""
    connection = None
    try:
        place = private_folder() / server_name(address)
        connection = connect(place)
        if connection is None:
            return None
        connection.settimeout(READY_SECONDS)
        payload = json.dumps({"module": module, "argv": argv} | surroundings()).encode()
        descriptors = array.array("i", [0, 1, 2]).tobytes()
        header = len(payload).to_bytes(8, "big")
        connection.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        connection.sendall(payload)
        if connection.recv(1) == forkserver.READY:
            connection.sendall(forkserver.GO)
            return connection
    except (OSError, SpecError):
        pass
    if connection is not None:
        connection.close()
    return None


def surroundings() -> dict[str, object]:
    """What a child takes over from the client, beside its command and its streams."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "umask": umask,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "cpus": sorted(os.sched_getaffinity(0)),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in forkserver.LIMITS},
    }


def server_name(address: str) -> str:
    """The name, 16 hexadecimal digits, of the server for this address, user, environment and set of packages."""
    packages = []
    for folder in filter(os.path.isdir, sys.path):
        packages += [(e.name, e.stat().st_mtime_ns) for e in os.scandir(folder) if e.name.endswith(".dist-info")]
    parts = [
        os.path.realpath(address),
        SERVER.read_text(),
        [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), sorted(os.getgroups())],
        [sys.executable, sys.prefix, sys.version, str(sys.flags), sorted(packages)],
        sorted((key, value) for key, value in os.environ.items() if AT_IMPORT.match(key)),
    ]
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def connect(place: Path) -> socket.socket | None:
    """A connection to the server whose socket is `place`, started if need be; None where that fails."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    started: subprocess.Popen | None = None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        connection = forkserver.reached(place)
        if connection is not None:
            if forkserver.peer(connection) == os.geteuid():
                return connection
            connection.close()
            return None
        if started is None and free(place.with_suffix(".lock")):
            started = start(place)
        elif started is not None and started.poll() is not None:
            if started.returncode != forkserver.TAKEN:
                return None
            started = None
        time.sleep(0.05)
    return None


def free(lock: Path) -> bool:
    """Whether no server has the lock; raises OSError where there are no locks, and so no servers."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def start(place: Path) -> subprocess.Popen:
    with place.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-P", str(SERVER), str(place)]  # -P: this folder is no library
        null = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=null, stdout=null, stderr=log, start_new_session=True, umask=0o077)
