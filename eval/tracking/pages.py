"""Where MLflow's pages show the experiment, and the server that shows them."""

import os
import sys
from pathlib import Path

from eval.tracking import store
from obsdiff.errors import SpecError


def page_of(uri: str, experiment: str, port: int = 5000) -> str:
    """Address of the experiment's runs: on the tracking server, or on that of `serve` for a store of files."""
    host = uri.rstrip("/") if uri.startswith("http") else f"http://127.0.0.1:{port}"
    return f"{host}/#/experiments/{experiment}/runs"


def serve(results: Path, experiment: str, port: int) -> None:
    """Print the experiment's page and become the MLflow server that shows it, unless the store is a server already.

    Raises:
        SpecError: nothing was tracked yet.
    """
    uri = store.uri_of(results)
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.is_file():
        raise SpecError(f"results: {path} is not there; run a sweep first (make results), or set MLFLOW_TRACKING_URI")
    found = store.client_of(results).get_experiment_by_name(experiment)
    if found is None:
        raise SpecError(f"experiment: {experiment!r} is not in {uri}; run a sweep first (make results)")
    print(f"MLflow   {page_of(uri, found.experiment_id, port)}", flush=True)
    if store.is_served(uri):
        return
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # of evaluations that nobody asks for here
    options = ["--backend-store-uri", uri, "--artifacts-destination", str(results.resolve() / "mlartifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *options, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, command)
