"""MLflow's SQLite file: killed while it is made, full disks, damage; and what another MLflow made."""

import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from apart import apart, carried, killed_while_writing, stopped
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tracked import cell_of, grid, own_store, runs_of, write

from eval.tracking import database, store
from obsdiff.errors import SpecError
from obsdiff.storage import files

__all__ = ["own_store"]
SEED = 5
STATEMENTS = 1690
"""by which MLflow 3.17 makes a store and an experiment"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> bytes:
    """A store with an experiment, and no run."""
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    database.prepare(path, True, lambda side: MlflowClient(side).create_experiment("test"))
    return path.read_bytes()


def check(folder: Path, count: int) -> None:
    found = runs_of(folder, "test")
    assert len(found) == count and {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        client = store.client_of(folder)
        for name in run.data.metrics:
            points = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)]
            assert len(points) == len(set(points))


def test_track_killed_at_any_statement_goes_on_with_each_run_once(tmp_path):
    chance = random.Random(SEED)
    paths = [write(tmp_path, cell, 1.0) for cell in grid("magnitude")]
    moments = [*(chance.randrange(1, STATEMENTS) for _ in range(2)), *range(STATEMENTS, STATEMENTS + 200, 90)]
    for moment in moments:
        begun = (tmp_path / "mlflow.db").exists()
        status = apart(stopped, moment - (STATEMENTS - 40) * begun, carried, tmp_path, paths)
        assert status in (-signal.SIGKILL, 0)
        assert not begun or database.examine(tmp_path / "mlflow.db") is None
    files.LOOKED.clear()
    carried(tmp_path, paths)
    check(tmp_path, 1 + len(paths))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"cells", "mlartifacts", "mlflow.db", "mlflow.db.lock", "mlflow.json"}


@pytest.mark.parametrize("statement", [30, STATEMENTS - 100])
def test_store_left_half_made_in_place_is_recognised(tmp_path, made, statement, capsys):
    """As versions before this one could leave it."""
    path = tmp_path / "mlflow.db"
    assert apart(stopped, statement, MlflowClient, f"sqlite:///{path}") == -signal.SIGKILL
    half = path.read_bytes()
    with pytest.raises(SpecError, match="is damaged"):
        store.client_of(tmp_path)
    database.prepare(path, True, lambda side: Path(side.removeprefix("sqlite:///")).write_bytes(made))
    database.examine(path)
    (aside,) = tmp_path.glob("mlflow.db.damaged-*")
    assert len(aside.read_bytes()) >= len(half) // 2 and not path.with_name("mlflow.db-journal").exists()
    assert capsys.readouterr().err.count("\n") == 1


def damaged(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    return {
        "empty": b"",
        "cut": whole[:middle],
        "text": b"not a database, but long enough " * 100,
        "overwritten": whole[:middle] + b"\xff" * 40000 + whole[middle + 40000 :],
        "header": b"\0" * 100 + whole[100:],
    }


def test_damaged_file_is_moved_aside_with_one_line_and_made_again(tmp_path, made, capsys):
    for name, content in damaged(made).items():
        path = tmp_path / name / "mlflow.db"
        path.parent.mkdir()
        path.write_bytes(content)
        path.with_name("mlflow.db-journal").write_bytes(b"of the former file")
        with pytest.raises(SpecError, match=r"MLFLOW_TRACKING_URI: .* is damaged .*; move it away"):
            database.prepare(path, False, lambda side: None)
        database.prepare(path, True, lambda side: Path(side.removeprefix("sqlite:///")).write_bytes(made))
        assert path.read_bytes() == made and len(list(path.parent.glob("mlflow.db.damaged-*"))) == 1
        assert not path.with_name("mlflow.db-journal").exists()
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "mlflow.db is damaged (" in said and "made again" in said


def test_lost_store_is_filled_again_from_the_metrics_files(tmp_path, made):
    paths = [write(tmp_path, cell, 1.0) for cell in grid("magnitude")]
    assert apart(carried, tmp_path, paths) == 0
    content = (tmp_path / "mlflow.db").read_bytes()
    (tmp_path / "mlflow.db").write_bytes(damaged(content)["overwritten"])
    assert apart(carried, tmp_path, paths) == 0
    check(tmp_path, 1 + len(paths))


def test_store_of_another_mlflow_is_refused_by_name(tmp_path, made):
    path, paths = tmp_path / "mlflow.db", [write(tmp_path, cell_of("dense", "0.00"), 1.0)]
    cases = {
        ("UPDATE alembic_version SET version_num = 'fffffff'",): "made by a newer MLflow than .*fffffff.*install",
        (
            "UPDATE alembic_version SET version_num = '451aebb31d03'",
            "INSERT INTO runs (run_uuid, lifecycle_stage) VALUES ('0', 'active')",
        ): "made by an older MLflow; run mlflow db upgrade 'sqlite:",
    }
    for statements, message in cases.items():
        path.write_bytes(made)
        with closing(sqlite3.connect(path)) as opened:
            for statement in statements:
                opened.execute(statement)
            opened.commit()
        for call in (store.client_of, lambda folder: carried(folder, paths)):
            with pytest.raises(SpecError, match=message):
                call(tmp_path)


def test_full_disk_is_an_error_and_the_next_run_works(tmp_path):
    paths = [write(tmp_path, cell, 1.0) for cell in grid("magnitude")][:1]

    def small(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 40")

    event.listen(Engine, "connect", small)
    try:
        with pytest.raises(SpecError, match=r"MLflow: sqlite.*full"):
            carried(tmp_path, paths)
    finally:
        event.remove(Engine, "connect", small)
    assert not list(tmp_path.glob("*.db*[!k]")) and not list(tmp_path.glob(".mlflow*"))
    carried(tmp_path, paths)
    check(tmp_path, 2)


def test_store_that_is_written_to_is_not_taken_for_damaged(tmp_path, made):
    path = tmp_path / "mlflow.db"
    path.write_bytes(made)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        database.examine(path)


def test_abandoned_side_files_are_removed_and_others_are_not(tmp_path, monkeypatch):
    """Of processes that were killed while they wrote; those of living ones and of other machines stay."""
    status = apart(killed_while_writing, tmp_path / "a")
    assert status == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    kept = [".a-00000000-1-x.tmp", f".a-{files.machine()}-{os.getpid()}-y.tmp", "a.tmp", ".tmp"]
    for name in kept:
        (tmp_path / name).touch()
    old = time.time() - 2 * files.ABANDONED_SECONDS
    (tmp_path / ".a-00000001-1-x.tmp").touch()
    os.utime(tmp_path / ".a-00000001-1-x.tmp", (old, old))
    monkeypatch.setattr(files, "LOOKED", set())
    files.write_text(tmp_path / "b", "")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "b"}
