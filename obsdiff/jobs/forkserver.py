"""The fork server of obsdiff/jobs/warm.py: libraries imported once, a forked child for every command.

Run by its path, with the standard library alone: nothing of this project is imported before the fork, so an edit of it
is never missed. It ends after a minute without work. A child that cannot become what the client is (its limits, its
umask, a complete request) ends before it says that it is ready, and the client runs the command itself.
"""

import array
import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any

LIBRARIES = (
    *("torch", "diffusers", "diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3"),
    *("open_clip", "torchmetrics"),
)
MODULES = ("obsdiff.__main__", "eval.__main__")
"""whose main() a child runs"""
IDLE_SECONDS, REQUEST_SECONDS = 60.0, 30.0
LONGEST_REQUEST = 1 << 26
"""bytes; arguments and environment together are limited by the kernel to less"""
TAKEN = 3
"""exit status of a server that another one forestalled"""
READY, GO = b"r", b"g"
LIMITS = tuple(name for name in dir(resource) if name.startswith("RLIMIT_"))


def serve(place: Path) -> int:
    """Hold the lock, bind the socket, import the libraries, fork for every connection until a minute passes without."""
    os.umask(0o077)
    lock = place.with_suffix(".lock").open("a")
    for attempt in range(20):  # a client that looks whether the lock is free has it for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt == 19:
                return TAKEN
            time.sleep(0.05)
    if not os.fstat(lock.fileno()).st_nlink:  # the former server's, removed in this moment
        return TAKEN
    place.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with short(place) as name:
        listener.bind(name)
    listener.listen(1024)
    os.chdir("/")
    try:
        for library in LIBRARIES:
            import_module(library)
        accept(listener, lock)
    finally:
        for file in (place, place.with_suffix(".log"), place.with_suffix(".lock")):
            file.unlink(missing_ok=True)
    return 0


def accept(listener: socket.socket, lock: IO[str]) -> None:
    listener.settimeout(1)
    children: set[int] = set()
    idle_since = time.monotonic()
    while children or time.monotonic() - idle_since < IDLE_SECONDS:
        for pid in list(children):
            if os.waitpid(pid, os.WNOHANG)[0]:
                children.discard(pid)
                idle_since = time.monotonic()
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            if peer(connection) != os.geteuid():
                continue
            pid = os.fork()
            if pid == 0:
                listener.close()
                lock.close()
                child(connection)
            children.add(pid)


@contextlib.contextmanager
def short(place: Path) -> Iterator[str]:
    """A name of at most 107 bytes, which is all that a socket's address holds, for a path of any length."""
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)


def reached(place: Path) -> socket.socket | None:
    """A connection to the socket; None where nothing listens."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(REQUEST_SECONDS)
    try:
        with short(place) as name:
            connection.connect(name)
        return connection
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None


def peer(connection: socket.socket) -> int:
    """The user id at the other end."""
    found: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return found


def child(connection: socket.socket) -> None:
    """Become the client's process: take over its streams and surroundings, run its command, answer with its status."""
    try:
        os.setsid()
        connection.settimeout(REQUEST_SECONDS)
        request, streams = received(connection)
        become(request, streams)
        connection.sendall(READY)
        if connection.recv(1) != GO:
            os._exit(1)
        connection.settimeout(None)
        threading.Thread(target=watch, args=(connection,), daemon=True).start()
    except BaseException as error:
        print(f"refused: {error!r}", file=sys.__stderr__, flush=True)
        os._exit(1)
    status = 1
    try:
        status = command(request)
    finally:
        with contextlib.suppress(OSError):
            connection.sendall(f"{status}\n".encode())
        os._exit(status)


def received(connection: socket.socket) -> tuple[dict[str, Any], array.array]:
    """The request and descriptors of its standard streams; an error where it is cut, too long or not a request."""
    header, ancillary, flags, _ = connection.recvmsg(8, socket.CMSG_SPACE(12))
    size = int.from_bytes(header, "big")
    if len(header) != 8 or len(ancillary) != 1 or flags & socket.MSG_CTRUNC or size > LONGEST_REQUEST:
        raise ValueError("no request")
    descriptors = array.array("i", ancillary[0][2])
    if len(descriptors) != 3:
        raise ValueError("three streams are needed")
    payload = b""
    while len(payload) < size:
        part = connection.recv(min(1 << 20, size - len(payload)))
        if not part:
            raise ValueError("the request is cut")
        payload += part
    request: dict[str, Any] = json.loads(payload)
    if request["module"] not in MODULES or not all(isinstance(a, str) for a in request["argv"]):
        raise ValueError("no command of this project")
    return request, descriptors


def become(request: dict[str, Any], streams: array.array) -> None:
    """Take over the client's surroundings and streams; an error where they cannot be had."""
    for name, limit in request["limits"].items():
        if tuple(limit) != resource.getrlimit(getattr(resource, name)):
            resource.setrlimit(getattr(resource, name), tuple(limit))
    os.sched_setaffinity(0, request["cpus"])
    if request["nice"] != os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.path.insert(0, request["cwd"])
    sys.argv = [request["module"], *request["argv"]]
    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, mode, 1, closefd=False) for i, mode in enumerate("rww"))


def watch(connection: socket.socket) -> None:
    """End with all processes of the command when the client does."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os.killpg(0, signal.SIGKILL)


def command(request: dict[str, Any]) -> int:
    """Run it; its exit status, with a traceback printed where it has one."""
    status = 1
    try:
        status = int(import_module(request["module"]).main(request["argv"]))
    except SystemExit as error:
        if isinstance(error.code, int | None):
            status = error.code or 0
        else:
            print(error.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status & 0xFF


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
