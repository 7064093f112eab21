"""What tests run in processes of their own, forked from a server that has MLflow imported.

The server imports nothing of the tests, and a child imports the module of the function that it is given: so that is
this one, which needs little, and not a file of tests.
"""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from eval.tracking import store
from eval.tracking.runs import track
from obsdiff.storage import files


def forked(function: Any, *arguments: Any) -> Any:
    """A process that calls the function, not started yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["eval.tracking.runs", "mlflow.store.tracking.sqlalchemy_store"])
    return context.Process(target=function, args=arguments)


def apart(call: Any, *arguments: Any) -> int | None:
    """Call in a process of its own; its exit status."""
    process = forked(local, call, *arguments)
    process.start()
    process.join()
    return process.exitcode


def local(call: Any, *arguments: Any) -> None:
    """Call with the default store, whatever was set when the server that forked this process began."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    call(*arguments)


def stopped(statement: int, call: Any, *arguments: Any) -> None:
    """Run a call, and end by SIGKILL before its given SQL statement."""
    count = iter(range(1, 1 << 30))

    @event.listens_for(Engine, "before_cursor_execute")
    def look(*_: object) -> None:
        if next(count) == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    call(*arguments)


def carried(folder: Path, paths: list[Path]) -> None:
    track(paths, "sweep", "test", [], folder, folder / "mlflow.json")


def track_at(uri: str, *arguments: Any) -> None:
    """track() on a server, in a process whose parent may have started for another one.

    No writer is killed, and on a machine with much else to do one may well need longer than an abandoned one is given.
    """
    os.environ["MLFLOW_TRACKING_URI"] = uri
    store.ABANDONED_SECONDS = 600
    track(*arguments)


def killed_while_writing(path: Path) -> None:
    with files.replacing(path):
        os.kill(os.getpid(), signal.SIGKILL)
