"""What a run of MLflow says of its cell."""

import os
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from eval.results import CellResult
from eval.tracking import database, store
from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile, read_json


def result_of(run: str, results: Path) -> CellResult:
    """What the metrics.json of a run says.

    Raises:
        SpecError: no such run, or it carries none.
    """
    uri = store.uri_of(results)
    where = "MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else f"{results}/mlflow.db"
    path = database.file_of(uri)
    if path and not path.is_file():
        raise SpecError(f"run: {run!r} cannot be looked up, {path} is not there; set MLFLOW_TRACKING_URI")
    client = store.client_of(results)
    with store.answering(uri):
        return carried(client, run, where)


def carried(client: MlflowClient, run: str, where: str) -> CellResult:
    """The metrics.json among a run's artifacts; SpecError, by the run, where there is none or it is damaged."""
    try:
        found = client.get_run(run)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise SpecError(f"run: {run!r} is not in the store of {where} ({error.error_code})") from None
    if not any(a.path == "metrics.json" for a in client.list_artifacts(run)):
        raise SpecError(
            f"run: {run!r} ({found.info.run_name}) carries no metrics.json; give that of a cell, no sweep's"
        )
    file = download_artifacts(run_id=run, artifact_path="metrics.json", tracking_uri=client.tracking_uri)
    try:
        return CellResult.of(read_json(Path(file)))
    except DamagedFile as error:
        raise SpecError(f"run: {run!r} carries a damaged file, {error}; track the sweep again") from None
    except SpecError as error:
        raise SpecError(f"run: {run!r} carries a metrics.json that {error}") from None
