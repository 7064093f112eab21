"""A shared MLflow server with PostgreSQL behind it, and eight writers at once (`make test-postgres`).

Needs root and Debian's package postgresql, whose server does not run as root; the target installs its driver apart.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from tracked import assert_each_run_once, carry, serving

WRITERS = 7
"""of one sweep; an eighth has another"""


@pytest.fixture
def database() -> Iterator[str]:
    """Address of a new PostgreSQL on this machine, in a folder that its user can reach."""
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*command: str) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    run(str(programs / "initdb"), "--auth", "trust", "--encoding", "UTF8", "--pgdata", data)
    control = [str(programs / "pg_ctl"), "--pgdata", data, "--wait", "--log", str(folder / "log")]
    run(*control, "--options", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1", "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        run(*control, "--mode", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_eight_writers_make_each_run_once(database, tmp_path, monkeypatch):
    """Twice: the second time they find what is there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with serving(tmp_path, database) as uri:
        for _ in range(2):
            carry(uri, tmp_path, WRITERS)
            assert_each_run_once(tmp_path, WRITERS)
    assert not any(tmp_path.glob("*.db")), "nothing went anywhere else"
    assert "MLFLOW_TRACKING_URI" not in os.environ
