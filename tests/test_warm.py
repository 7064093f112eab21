"""The fork server, one that imports nothing: whatever happens to it, a command runs once, and as it would alone."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from malformed import count

from obsdiff.errors import SpecError
from obsdiff.jobs import forkserver, user, warm

ROOT = Path(__file__).parents[1]
SEED = 3
SERVER = f"""
import sys
sys.path.insert(0, {str(ROOT / "obsdiff/jobs")!r})
import forkserver
from pathlib import Path
forkserver.LIBRARIES, forkserver.IDLE_SECONDS, forkserver.REQUEST_SECONDS = (), 20, 5
"""
SERVE = "sys.exit(forkserver.serve(Path(sys.argv[1])))\n"
CLIENT = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from obsdiff.jobs import warm
warm.SERVER = Path(sys.argv.pop(1))
def own(argv):
    print("own process", flush=True)
    sys.path.insert(0, "")
    exec(argv[0], dict())
    return 0
sys.exit(warm.run("eval.__main__", own, sys.argv[1:]))
"""
JOB = "def main(argv):\n    exec(argv[0], {})\n    return 0\n"
SURROUNDINGS = """
import json, os, resource, sys
umask = os.umask(0)
env = {k: v for k, v in os.environ.items() if k not in ("OBSDIFF_WARM", "_")}
limits = [resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")]
print(json.dumps([umask, env, limits, os.getcwd(), os.nice(0), sorted(os.sched_getaffinity(0)), sys.argv[1:]]))
print(sys.stdin.read(), file=sys.stderr)
sys.exit(7)
"""


class Place:
    """A folder of jobs, with a server of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, folder / "server.py"
        (folder / "eval").mkdir()
        (folder / "eval/__main__.py").write_text(JOB)
        (folder / "client.py").write_text(CLIENT)
        (folder / "run").mkdir(mode=0o700)
        self.serve("")

    def serve(self, *lines: str) -> None:
        self.server.write_text(SERVER + "\n".join(lines) + "\n" + SERVE)

    def start(self, job: str, address: str = "socket", **more: Any) -> subprocess.Popen:
        env = os.environ | {"XDG_RUNTIME_DIR": str(self.folder / "run"), "OBSDIFF_WARM": address}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, str(self.folder / "client.py"), str(self.server), job]
        return subprocess.Popen(command, cwd=self.folder, env=env, **{**pipes, **more})

    def run(self, job: str, **more: Any) -> str:
        process = self.start(job, **more)
        out, err = process.communicate("", timeout=60)
        assert process.returncode == 0, err
        return out

    def parent(self, **more: Any) -> int:
        """The process id of the server that forks."""
        return int(self.run("import os; print(os.getppid())", **more))

    @property
    def files(self) -> set[str]:
        return {path.suffix for path in (self.folder / "run").rglob("*") if path.is_file() or path.is_socket()}

    @property
    def socket(self) -> Path:
        (found,) = (self.folder / "run").rglob("*/[0-9a-f]" + "?" * 15)
        return found


SLEEP = f"97531.{os.getpid()}"
"""seconds that a command's own process sleeps; no other run of the tests has the number"""


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    for word in (str(made.server), SLEEP):
        for process in running(word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def running(word: str) -> list[int]:
    """Processes whose command line holds the word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and word in (entry / "cmdline").read_text(errors="replace"):
                found.append(int(entry.name))
        except OSError:
            continue
    return [process for process in found if process != os.getpid()]


def within(seconds: float, done) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def limited() -> None:
    import resource

    os.umask(0o027)
    os.nice(3)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))


def test_command_is_what_it_would_be_alone(place):
    """Umask, environment, limits, working directory, niceness, CPUs, arguments, streams and exit status."""
    place.parent(umask=0o000)
    said = []
    for address in ("socket", ""):
        process = place.start(SURROUNDINGS, address, preexec_fn=limited)
        said.append((*process.communicate("typed", timeout=60), process.returncode))
    assert said[1][0] == "own process\n" + said[0][0] and said[0][1:] == said[1][1:] == ("typed\n", 7)
    assert json.loads(said[0][0])[0] == 0o027
    assert place.socket.stat().st_mode & 0o077 == place.socket.parent.stat().st_mode & 0o077 == 0


def test_one_server_serves_all_who_come_at_once_also_after_it_was_killed(place):
    for _ in range(2):
        started = [place.start("import os; print(os.getppid())") for _ in range(6)]
        parents = {int(process.communicate("")[0]) for process in started}
        assert len(parents) == 1
        os.kill(parents.pop(), signal.SIGKILL)
        assert place.socket.is_socket(), "a stale socket stays"
    within(60, lambda: not running(str(place.server)))  # one that started late, in the dead one's place, ends when idle


def test_long_address_and_results_on_any_file_system_are_served(place):
    assert place.parent(address="x" * 200 + "/" + "y" * 200) in running(str(place.server))


def test_killed_client_takes_its_command_and_what_that_started_with_it(place):
    job = (
        f"import subprocess, time; subprocess.Popen(['sleep', '{SLEEP}']); print('begun', flush=True); time.sleep(100)"
    )
    process = place.start(job)
    assert process.stdout.readline() == "begun\n"
    within(10, lambda: len(running(SLEEP)) >= 2)  # one that was just started has no command line yet
    process.kill()
    process.communicate()
    within(10, lambda: not running(SLEEP))
    assert len(running(str(place.server))) == 1


def test_killed_command_is_an_error_of_its_client(place):
    process = place.start("import os; os.kill(os.getpid(), 9)")
    assert "error: the worker ended without an answer" in process.communicate("")[1] and process.returncode == 1


@pytest.mark.parametrize(
    "line",
    [
        "raise RuntimeError",
        "forkserver.LIBRARIES = ('no_such_library',)",
        "forkserver.peer = lambda connection: -1",
        "forkserver.socket.socket.bind = lambda *_: open('/nowhere/x')",
        "forkserver.accept = lambda *_: None",
        "forkserver.os.fork = lambda: forkserver.os.kill(forkserver.os.getpid(), 9)",
        "forkserver.become = lambda *_: 1 / 0",
        "forkserver.READY = b'?'",
    ],
)
def test_where_the_server_fails_the_command_runs_in_its_own_process_at_once(place, line):
    place.serve(line)
    begun = time.monotonic()
    assert place.run("print('done')") == "own process\ndone\n"
    assert time.monotonic() - begun < warm.START_SECONDS


def test_client_hands_nothing_to_a_server_of_another_user(place, monkeypatch):
    place.parent()
    monkeypatch.setattr(forkserver, "peer", lambda connection: os.geteuid() + 1)
    assert warm.connect(place.socket) is None
    monkeypatch.undo()
    with warm.connect(place.socket) as connection:
        assert forkserver.peer(connection) == os.geteuid()


def test_no_private_folder_means_no_server(place, monkeypatch):
    """Neither a link in its place nor a file system that takes no folder."""
    (place.folder / "run" / f"obsdiff-{os.geteuid()}").symlink_to(place.folder)
    monkeypatch.setattr(user, "places", lambda: [place.folder / "run", Path("/dev/null"), Path("/proc")])
    monkeypatch.setenv("OBSDIFF_WARM", "x")
    assert warm.run("eval.__main__", lambda argv: len(argv), ["a", "b"]) == 2
    with pytest.raises(SpecError, match=r"XDG_RUNTIME_DIR: .* \(it is not a folder\), /dev/null/.*, /proc/"):
        user.private_folder()


def garbage(number: int) -> tuple[bytes, list[int]]:
    """Header and payload, and how many descriptors come with them."""
    chance = random.Random(f"{SEED} {number}")
    whole = json.dumps({"module": "eval.__main__", "argv": ["print(1)"], "cwd": "/", "env": {}}).encode()
    size = chance.choice([0, 1, len(whole), len(whole) + 9, 1 << 25, 1 << 40, (1 << 64) - 1])
    payload = chance.choice(
        [b"", whole, whole[: chance.randrange(len(whole))], chance.randbytes(300), b"[]", b"null", b"1"]
    )
    header = size.to_bytes(8, "big")[: chance.choice([8, 8, 8, 3])]
    return header + payload, [0, 1, 2][: chance.choice([3, 3, 0, 1])]


@pytest.mark.malformed
def test_garbage_is_refused_and_leaves_no_process(place):
    server = place.parent()
    for number in range(60):
        data, descriptors = garbage(number)
        with forkserver.reached(place.socket) as connection:
            if descriptors:
                socket.send_fds(connection, [data], descriptors)
            else:
                connection.sendall(data)
            if number % 2:
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert not connection.recv(1)
        count("requests to the fork server", "refused")
    assert place.parent() == server
    within(20, lambda: running(str(place.server)) == [server])


def test_what_a_server_cannot_become_gives_it_another_name(monkeypatch, tmp_path):
    """Its address, packages, and variables that libraries read on import."""
    (tmp_path / "torch-1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    names = [warm.server_name("a"), warm.server_name("b")]
    (tmp_path / "torch-1.dist-info").rename(tmp_path / "torch-2.dist-info")
    names.append(warm.server_name("a"))
    monkeypatch.setenv("HF_HUB_CACHE", "/x")
    names.append(warm.server_name("a"))
    monkeypatch.setattr(os, "getgroups", lambda: [77])
    names.append(warm.server_name("a"))
    monkeypatch.setenv("UNRELATED", "1")
    assert len(set(names)) == len(names) and warm.server_name("a") == names[-1]


def test_idle_server_ends_and_leaves_nothing(place):
    place.serve("forkserver.IDLE_SECONDS = 0.1")
    server = place.parent()
    within(10, lambda: server not in running(str(place.server)))
    assert place.files == set()
