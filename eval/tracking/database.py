"""The SQLite file of a local MLflow store: made beside and renamed, and examined before it is used.

MLflow makes its tables by some 1,700 statements that are not one transaction: a process killed among them, or a full
disk, leaves a file that MLflow can neither use nor repair. Such a file, or one that SQLite finds damaged, is moved
aside and made again; the cells' metrics.json files are the truth, and are carried into the new one.
"""

import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from time import strftime
from typing import Any

import mlflow
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Engine

from obsdiff.errors import SpecError
from obsdiff.storage.files import replacing

PREFIX = "sqlite:///"
SIDES = ("-journal", "-wal", "-shm")
"""suffixes of files beside a database that SQLite takes for its unfinished writes"""
BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of errors that it raises too


class DamagedStore(Exception):
    """Why a database cannot be used."""


def address(path: Path) -> str:
    """MLflow's address of the file.

    Raises:
        SpecError: the path holds a question mark, at which such an address ends.
    """
    if "?" in str(path):
        raise SpecError(f"results: {str(path)!r} holds a question mark, and MLflow's store cannot; use another folder")
    return f"{PREFIX}{path}"


def file_of(uri: str) -> Path | None:
    """The file behind a store's address; None for a server, another database, or one in memory."""
    name = uri.removeprefix(PREFIX).partition("?")[0]
    return Path(name) if uri.startswith(PREFIX) and name not in ("", ":memory:") else None


@lru_cache
def revisions() -> tuple[str, frozenset[str]]:
    """The database schema of this MLflow, and all that led to it."""
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return str(scripts.get_current_head()), frozenset(script.revision for script in scripts.walk_revisions())


def examine(path: Path) -> None:
    """Look whether MLflow can use the file.

    Raises:
        DamagedStore: it is empty, damaged, or was left half-made.
        SpecError: it was made by another MLflow, or cannot be read.
    """
    if not path.stat().st_size:
        raise DamagedStore("it is empty")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=20)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise DamagedStore(" ".join(found.split()))
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            has_runs = "runs" in tables and bool(database.execute("SELECT 1 FROM runs LIMIT 1").fetchone())
            rows = database.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
            versions = {version for (version,) in rows}
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in BROKEN:
            raise DamagedStore(str(error)) from None
        raise SpecError(f"results: {path} cannot be read ({error}); end what uses it, or move it away") from None
    newest, known = revisions()
    if unknown := versions - known:
        what = f"was made by a newer MLflow than {mlflow.__version__} (schema {', '.join(unknown)})"
        raise SpecError(f"results: {path} {what}; install that MLflow, or move the file away")
    if versions != {newest} and has_runs:
        command = f"mlflow db upgrade '{PREFIX}{path.resolve()}'"
        raise SpecError(f"results: {path} was made by an older MLflow; run {command}")
    if versions != {newest}:
        raise DamagedStore("the process that made it was killed, or the disk was full")


def require_sound(uri: str) -> None:
    """The file behind `uri` can be used, if it is one and there.

    Raises:
        SpecError: it cannot.
    """
    path = file_of(uri)
    try:
        if path and path.is_file():
            examine(path)
    except DamagedStore as error:
        raise SpecError(f"results: {path} is damaged ({error}); run the sweep again, it makes the store anew") from None


@contextmanager
def unsynchronised() -> Iterator[None]:
    """SQLite does not wait for the disk after every statement; for a file that nobody reads before it is whole."""

    def connected(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


def prepare(path: Path, ours: bool, fill: Callable[[str], object]) -> None:
    """Make the database if it is missing, or if it is damaged and ours; the old one stays as `….damaged-<time>`.

    Args:
        fill: makes the store at an address.

    Raises:
        SpecError: it is damaged and not ours, or another MLflow's.
    """
    try:
        if path.exists():
            examine(path)
            return
    except DamagedStore as error:
        if not ours:
            raise SpecError(f"MLFLOW_TRACKING_URI: {path} is damaged ({error}); move it away") from None
        aside = path.with_name(f"{path.name}.damaged-{strftime('%Y%m%d-%H%M%S')}")
        path.rename(aside)
        print(f"{path} is damaged ({error}); it is {aside.name} now, and made again", file=sys.stderr, flush=True)
    for suffix in SIDES:  # of a file that is gone; SQLite would play them into the new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with replacing(path) as side:
        try:
            with unsynchronised():
                fill(address(side.resolve()))
            with side.open("rb") as file:
                os.fsync(file.fileno())
        finally:
            for suffix in SIDES:
                with suppress(OSError):
                    side.with_name(side.name + suffix).unlink()
