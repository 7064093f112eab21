"""A fork server that keeps torch and diffusers imported between the short jobs of one sweep (CPU only).

Importing the libraries takes longer than many a job. With OBSDIFF_WARM naming a socket, `run` hands its command to
a server there (started by whoever comes first), which forks a child with the same arguments, environment, working
directory and standard streams. The server imports libraries only, none of this project's code, so an edit is never
missed; it ends after a minute without work. A client that dies takes its child with it. Without the variable, or
where anything about the socket fails, the command runs in its own process.
"""

import array
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIBRARIES = ("torch", "diffusers", "diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3", "open_clip")
IDLE_SECONDS = 60
Main = Callable[[list[str]], int]


def run(module: str, main: Main, argv: list[str]) -> int:
    """Run `main(argv)`, found again as `module.main` by the server, warm where that is asked for and possible."""
    address = os.environ.get("OBSDIFF_WARM")
    if not address:
        return main(argv)
    connection = connect(address)
    if connection is None:
        return main(argv)
    with connection:
        request = {"module": module, "argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}
        payload = json.dumps(request).encode()
        descriptors = array.array("i", [0, 1, 2]).tobytes()
        header = len(payload).to_bytes(8, "big")
        connection.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        connection.sendall(payload)
        answer = connection.makefile().readline()
    if not answer:
        raise SystemExit("error: the worker ended without an answer; it was killed, or ran out of memory")
    return int(answer)


def connect(address: str) -> socket.socket | None:
    """A connection to the server at `address`, started if need be; None where that fails."""
    path = Path(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 120
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started: subprocess.Popen | None = None
        while time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(os.path.relpath(path))
                return connection
            except OSError:
                connection.close()
            if started is None:
                log = path.with_suffix(".log").open("w")
                command = [sys.executable, "-P", __file__, str(path.resolve())]  # -P: this folder is no library
                null = subprocess.DEVNULL
                started = subprocess.Popen(command, stdin=null, stdout=null, stderr=log, start_new_session=True)
            elif started.poll() is not None:
                return None
            time.sleep(0.05)
    return None


def serve(path: Path) -> None:
    """Import the libraries, then fork a child for every connection until a minute passes without one."""
    from importlib import import_module

    for library in LIBRARIES:
        import_module(library)
    os.chdir(path.parent)
    path.unlink(missing_ok=True)
    children: set[int] = set()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
        listener.listen(64)
        listener.settimeout(1)
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
            pid = os.fork()
            if pid == 0:
                listener.close()
                child(connection)
            children.add(pid)
            connection.close()
        path.unlink(missing_ok=True)


def child(connection: socket.socket) -> None:
    """Become the client's process: take over its streams, run its command, answer with its exit status."""
    import threading
    from importlib import import_module

    status = 1
    try:
        connection.settimeout(None)
        size, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(12))
        for target, descriptor in enumerate(array.array("i", ancillary[0][2])):
            os.dup2(descriptor, target)
            os.close(descriptor)
        payload = b""
        while len(payload) < int.from_bytes(size, "big"):
            payload += connection.recv(1 << 20)
        request = json.loads(payload)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.path.insert(0, request["cwd"])
        sys.argv = [request["module"], *request["argv"]]
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, mode, 1, closefd=False) for i, mode in enumerate("rww"))

        def watch() -> None:
            connection.recv(1)
            os.kill(os.getpid(), 9)

        threading.Thread(target=watch, daemon=True).start()
        status = import_module(request["module"]).main(request["argv"])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(f"{status}\n".encode())
        os._exit(status)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
