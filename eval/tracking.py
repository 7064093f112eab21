"""metrics.json → MLflow; the only module that imports mlflow.

A sweep is a parent run, a cell a child. Runs are found again by the tags `obsdiff.sweep` and `obsdiff.cell` (the
cell's hash), so that a rerun resumes an unfinished run, leaves a finished one alone and never makes a second; one
whose metrics were measured anew (`obsdiff.metrics` differs) is logged again into the same run. A cell defined otherwise
has another hash, hence a run of its own; the older one is tagged `obsdiff.superseded`.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.tracking import MlflowClient
from PIL import Image
from tqdm import tqdm

from eval.cells import cell_hash, named, parse
from eval.figures import strip
from eval.measure import write_json

SWEEP, CELL, AXES_TAG, SUPERSEDED = "obsdiff.sweep", "obsdiff.cell", "obsdiff.path", "obsdiff.superseded"
MEASURED = "obsdiff.metrics"
GRID_PICTURES = 36


def client_of(results: Path) -> MlflowClient:
    """A client of MLFLOW_TRACKING_URI, by default of results/mlflow.db."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results.resolve()}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


def experiment_id(client: MlflowClient, name: str, results: Path) -> str:
    """The experiment's id, made if missing; a server keeps artifacts itself, else they go to results/mlartifacts."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    served = client.tracking_uri.startswith(("http", "databricks"))
    location = None if served else (results.resolve() / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def find(client: MlflowClient, experiment: str, tags: dict[str, str]) -> list[Run]:
    text = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
    return list(client.search_runs([experiment], text, ViewType.ACTIVE_ONLY))


def obtain(client: MlflowClient, experiment: str, name: str, keys: dict[str, str], more: dict[str, str]) -> Run:
    """The run with these tags, else a new one."""
    found = find(client, experiment, keys)
    return found[0] if found else client.create_run(experiment, run_name=name, tags=keys | more)


def log_cell(client: MlflowClient, experiment: str, parent: Run, sweep: str, folder: Path, cell: dict[str, Any]) -> str:
    """Carry one cell to its child run; returns the run's id."""
    keys = {SWEEP: sweep, CELL: cell["hash"]}
    about = parse(folder)
    tags = {"mlflow.parentRunId": parent.info.run_id, AXES_TAG: about.path}
    run = obtain(client, experiment, named(about), keys, tags)
    identity = run.info.run_id
    measured = cell_hash(cell)
    if run.info.status == "FINISHED" and run.data.tags.get(MEASURED) == measured:
        return str(identity)
    params = cell["cell"] | {k: v for k, v in cell["provenance"]["spec"].items() if k not in ("sampling", "prompts")}
    params |= {f"sampling.{k}": v for k, v in cell["provenance"]["spec"]["sampling"].items()}
    metrics = {k: m["value"] for k, m in cell["metrics"].items()}
    for k, m in cell["metrics"].items():
        metrics |= dict(zip((f"{k}_q1", f"{k}_q3"), m.get("quartiles", ()), strict=False))
    now = int(1000 * time.time())
    entities = [Metric(k, float(v), now, 0) for k, v in metrics.items()]
    entities += [Metric("layer_error_by_layer", layer["error"], now, i) for i, layer in enumerate(cell["layers"])]
    client.log_batch(identity, entities, [Param(k, str(v)) for k, v in params.items()])
    client.log_image(identity, Image.fromarray(grid_of(folder, cell["prompts"])), "pictures.png")
    for file in (folder / "metrics.json", folder / "checkpoint" / "manifest.json"):
        client.log_artifact(identity, str(file))
    client.set_tag(identity, MEASURED, measured)
    client.set_terminated(identity, "FINISHED")
    for older in find(client, experiment, {SWEEP: sweep, AXES_TAG: about.path}):
        if older.info.run_id != identity:
            client.set_tag(older.info.run_id, SUPERSEDED, identity)
    return str(identity)


def grid_of(folder: Path, prompts: Sequence[str]) -> np.ndarray:
    return strip(folder, prompts[:GRID_PICTURES], columns=12)


def track(paths: Sequence[Path], sweep: str, experiment: str, files: Sequence[Path], results: Path, out: Path) -> None:
    """Carry every cell to MLflow and write {experiment, parent, runs: {cell path: run id}}.

    Args:
        paths: the cells' metrics.json files.
        sweep: the parent run's name.
        files: artifacts of the parent run.
        results: folder of the default store.
        out: JSON file.
    """
    client = client_of(results)
    home = experiment_id(client, experiment, results)
    parent = obtain(client, home, sweep, {SWEEP: sweep, "obsdiff.role": "sweep"}, {})
    runs = {}
    for path in tqdm(paths, desc="tracking", unit="cell", mininterval=2):
        cell = json.loads(path.read_text())
        runs[parse(path.parent).path] = log_cell(client, home, parent, sweep, path.parent, cell)
    for file in files:
        client.log_artifact(parent.info.run_id, str(file))
    client.set_terminated(parent.info.run_id, "FINISHED")
    write_json(out, {"experiment": experiment, "parent": parent.info.run_id, "runs": runs})
