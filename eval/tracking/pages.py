"""Where MLflow shows the experiment: addresses, saved views, and the server of a store of files.

A view is what MLflow's own "Share" button makes: an experiment tag that holds the state of the page. `cells` lists all
cells with their axes, FID and CLIP score, best FID first; `quality-0.50` draws the metrics of one sparsity by method.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.analysis import shown
from eval.results import CellResult
from eval.tracking import database, store
from obsdiff.errors import SpecError

VIEW = "mlflow.sharedViewState."
CELLS = "cells"
CURRENT = "tags.`obsdiff.role` = 'cell' and tags.`obsdiff.superseded` IS NULL"
COLUMNS = ("method", "pattern", "sparsity", "seed", "weighting")
LISTED = ("fid", "clip_score")
SECTION = "quality"


def chart(metric: str) -> dict[str, Any]:
    """Bars of a metric, one for each run or group of runs."""
    own = {"uuid": metric, "metricKey": metric, "metricSectionId": SECTION}
    return own | {"type": "BAR", "runsCountToCompare": 100, "deleted": False, "isGenerated": False}


def views(records: Sequence[CellResult]) -> dict[str, str]:
    """Experiment tags: the view `cells`, and `quality-<sparsity>` of each sparsity."""
    measured = [name for name in shown.measured() if any(name in record.metrics for record in records)]
    # few metrics: MLflow shows them left of the params, which would not fit beside all of them
    columns = [f"params.`{axis}`" for axis in COLUMNS] + [f"metrics.`{name}`" for name in measured if name in LISTED]
    listed = {"searchFilter": CURRENT, "orderByKey": "metrics.`fid`", "orderByAsc": True, "selectedColumns": columns}
    section = {"uuid": SECTION, "name": "quality", "display": True}
    drawn = {
        "compareRunSections": [section | {"isReordered": False, "deleted": False, "isGenerated": False}],
        "compareRunCharts": [chart(metric) for metric in measured],
        "isAccordionReordered": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "method"}]},
        "runsVisibilityMode": "SHOWALL",
    }
    found = {CELLS: listed}
    for value in sorted({record.cell.sparsity for record in records}):
        found[f"{SECTION}-{value}"] = listed | drawn | {"searchFilter": f"{CURRENT} and params.sparsity = '{value}'"}
    return {VIEW + key: json.dumps(state) for key, state in found.items()}


def view_page(experiment: str, view: str) -> str:
    """Address of a view within MLflow's pages."""
    mode = "&compareRunsMode=CHART" if view != CELLS else ""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view}&workflowType=machine_learning{mode}"


def page_of(uri: str, experiment: str, port: int = 5000) -> str:
    """Address of the experiment's cells: on the tracking server, or on that of `serve` for a store of files."""
    host = store.without_password(uri).rstrip("/") if uri.startswith("http") else f"http://127.0.0.1:{port}"
    return f"{host}/{view_page(experiment, CELLS)}"


def serve(results: Path, experiment: str, port: int) -> None:
    """Print the experiment's page and become the MLflow server that shows it, unless the store is a server already.

    Raises:
        SpecError: nothing was tracked yet.
    """
    uri = store.uri_of(results)
    path = database.file_of(uri)
    if path and not path.is_file():
        raise SpecError(f"results: {path} is not there; run a sweep first (make results), or set MLFLOW_TRACKING_URI")
    with store.answering(uri):
        found = store.client_of(results).get_experiment_by_name(experiment)
    if found is None:
        raise SpecError(
            f"experiment: {experiment!r} is not in {store.without_password(uri)}; run a sweep first (make results)"
        )
    print(f"MLflow   {page_of(uri, found.experiment_id, port)}", flush=True)
    if store.is_served(uri):
        return
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # of evaluations that nobody asks for here
    options = ["--backend-store-uri", uri, "--artifacts-destination", str(results.resolve() / "mlartifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *options, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, command)
