"""The MLflow store: an experiment and runs that are there once however many processes ask for them at once."""

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from eval.tracking import database
from obsdiff.errors import SpecError, first_line
from obsdiff.jobs import user
from obsdiff.storage.files import write_json
from obsdiff.storage.locks import locked

SETTLED = "obsdiff.settled"
ABANDONED_SECONDS = 30
"""after which a run that is on a server without being settled is taken for that of a killed process"""
ATTEMPTS = 6
METRICS_A_BATCH, PARAMS_A_BATCH = 900, 90
"""MLflow takes 1000 and 100"""
PASSWORD = re.compile(r"(?<=://)[^/?#\s]*@")
Result = TypeVar("Result")
Point = tuple[str, float, int]
"""name, value and step of a metric"""


def uri_of(results: Path) -> str:
    """MLFLOW_TRACKING_URI, by default results/mlflow.db."""
    return os.environ.get("MLFLOW_TRACKING_URI") or database.address(results.resolve() / "mlflow.db")


def without_password(text: str) -> str:
    """A text without the names and passwords of the addresses in it."""
    return PASSWORD.sub("", text)


def is_served(uri: str) -> bool:
    return uri.startswith(("http", "databricks"))


def client_of(results: Path) -> MlflowClient:
    """A client of the store that `results` stands for, see uri_of; a file that is there can be used.

    Raises:
        SpecError: it is damaged, or another MLflow's.
    """
    uri = uri_of(results)
    database.require_sound(uri)
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Failures of a store as one line: a server that does not answer, a full disk, a folder that cannot be written to.

    Raises:
        SpecError: in their place.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        said = f"MLflow: {uri} failed ({first_line(error)}); fix that and run again, nothing measured is lost"
        raise SpecError(without_password(said)) from None


@contextmanager
def opened(results: Path, experiment: str) -> Iterator[tuple[MlflowClient, str]]:
    """A client and the experiment's id, both made if missing.

    A store of files is one process's at a time, until it ends however it ends; a server takes several.

    Raises:
        SpecError: the store cannot be used, cannot be reached or has no room.
    """
    uri = uri_of(results)
    path = database.file_of(uri)

    def fill(side: str) -> None:
        experiment_id(MlflowClient(side), experiment, results)

    with answering(uri), locked(path.with_name(f"{path.name}.lock")) if path else nullcontext():
        if path:
            database.prepare(path, not os.environ.get("MLFLOW_TRACKING_URI"), fill)
        client = client_of(results)
        yield client, experiment_id(client, experiment, results)


def prepare(results: Path, experiment: str, out: Path) -> None:
    """Make the store and the experiment where they are missing, which takes longer than to fill them.

    Args:
        results: folder of the default store.
        out: a JSON record, for those who wait for it; `runs` in it is the address of the experiment's runs on a server.

    Raises:
        SpecError: the store cannot be used.
    """
    with opened(results, experiment) as (client, number):
        write_json(out, {"experiment": experiment, "runs": runs_address(client.tracking_uri, number)})


def runs_address(uri: str, experiment: str) -> str:
    """Where a server shows an experiment's runs, without the name and password that `uri` may hold; '' without one."""
    return f"{without_password(uri).rstrip('/')}/#/experiments/{experiment}/runs" if uri.startswith("http") else ""


def experiment_id(client: MlflowClient, name: str, results: Path) -> str:
    """The experiment's id, made if missing; a server keeps artifacts itself, else they go to results/mlartifacts.

    Raises:
        SpecError: the experiment was deleted in MLflow.
    """
    location = None if is_served(client.tracking_uri) else (results.resolve() / "mlartifacts").as_uri()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            # the kind makes MLflow's pages open on the runs
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=location, tags=kind))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
    assert found is not None
    if found.lifecycle_stage != "active":
        what = "restore it (mlflow experiments restore), or remove it for good (mlflow gc)"
        raise SpecError(f"experiment: {name!r} was deleted in MLflow; {what}")
    return str(found.experiment_id)


def find(client: MlflowClient, experiment: str, tags: dict[str, str]) -> list[Run]:
    """Active runs with these tags, the oldest first."""
    # a filter cannot quote a quote
    text = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items() if "'" not in v)
    found: list[Run] = []
    token: str | None = ""
    while token is not None:
        order = ["attributes.start_time ASC"]
        page = client.search_runs([experiment], text, ViewType.ACTIVE_ONLY, order_by=order, page_token=token or None)
        found += [run for run in page if run.data.tags.items() >= tags.items()]
        token = page.token or None
    return found


def obtain(
    client: MlflowClient,
    experiment: str,
    name: str,
    keys: dict[str, str],
    more: dict[str, str],
    start: int | None = None,
) -> Run:
    """The run with these tags, else a new one; processes that ask at once get the same one.

    Of two that make a run at once at least one sees the other's when it looks again: whoever sees another one deletes
    its own, waits and begins anew, so at most one is settled, whatever the clocks say. Only settled runs are used.
    A store of files is opened() by one process at a time, so there any other is a killed one's.

    Args:
        name: the run's name, if it is made.
        keys: the tags that it is found by.
        more: further tags, if it is made.
        start: milliseconds since 1970 at which what it tells of began, if it is made; now by default.
    """
    begun = time.monotonic()
    patience = ABANDONED_SECONDS if database.file_of(client.tracking_uri) is None else 0
    more = more | {"mlflow.user": user.name(), "mlflow.source.name": "obsdiff", "mlflow.source.type": "LOCAL"}
    while True:
        found = find(client, experiment, keys)
        for run in found:
            if SETTLED in run.data.tags or run.info.status == "FINISHED":
                return run
        if not found:
            identity = client.create_run(experiment, start, keys | more, name).info.run_id
            if len(find(client, experiment, keys)) == 1:
                client.set_tag(identity, SETTLED, "true")
                return client.get_run(identity)
            client.delete_run(identity)
        elif time.monotonic() - begun > patience:
            for run in found:
                client.delete_run(run.info.run_id)
        time.sleep(random.uniform(0.05, 0.5))


def insist(call: Callable[..., Result], *args: Any) -> Result:
    """call(*args), again where another process wrote the same row of the database in that moment."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call(*args)
        except MlflowException as error:
            if error.error_code not in ("BAD_REQUEST", "INTERNAL_ERROR") or attempt == ATTEMPTS:
                raise
        time.sleep(random.uniform(0.05, 0.3) * attempt)
    raise AssertionError


def log(client: MlflowClient, run: Run, params: dict[str, str], points: Sequence[Point], tags: dict[str, str]) -> None:
    """Params, metrics and tags of a run; a point is there once, however many processes log it and however often.

    Args:
        points: name, value and step of metrics.
    """
    identity, metrics = run.info.run_id, news(client, run, points)
    for i in range(0, len(metrics), METRICS_A_BATCH):
        insist(client.log_batch, identity, metrics[i : i + METRICS_A_BATCH])
    entities = [Param(k, v) for k, v in params.items()]
    for i in range(0, len(entities), PARAMS_A_BATCH):
        insist(client.log_batch, identity, (), entities[i : i + PARAMS_A_BATCH])
    insist(client.log_batch, identity, (), (), [RunTag(k, v) for k, v in tags.items()])


def news(client: MlflowClient, run: Run, points: Sequence[Point]) -> list[Metric]:
    """The points that differ from the newest that the run has: a history keeps all that it was ever given.

    No clock is asked. The first point of a name and step has the time at which the run began, a later one that of its
    predecessor and a millisecond: processes that log at once give it the same time, and MLflow keeps equal ones once.
    """
    known: dict[tuple[str, int], tuple[int, float]] = {}
    for name in {name for name, _, _ in points} & client.get_run(run.info.run_id).data.metrics.keys():
        for m in client.get_metric_history(run.info.run_id, name):
            known[name, m.step] = max(known.get((name, m.step), (0, m.value)), (m.timestamp, m.value))
    found = []
    for name, value, step in points:
        stamp, last = known.get((name, step), (run.info.start_time - 1, None))
        if last != value:
            found.append(Metric(name, value, stamp + 1, step))
    return found
