"""metrics.json → MLflow; the only package that imports mlflow.

A sweep is a parent run, a cell a child. Runs are found again by the tags `obsdiff.sweep` and `obsdiff.cell` (the
cell's hash), so that a rerun resumes an unfinished run, leaves a finished one alone and never makes a second; one
whose metrics were measured anew (`obsdiff.metrics` differs) is logged again into the same run. A cell defined otherwise
has another hash, hence a run of its own; the older one is tagged `obsdiff.superseded`.

    store     the experiment and runs, made once whoever asks
    content   what a cell's run says
    sweep     what the parent run says
    pages     where MLflow shows them
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image
from tqdm import tqdm

from eval.cells import cell_hash, cell_path
from eval.figures import strip
from eval.tracking import content, store, sweep
from eval.tracking.pages import page_of, views

SWEEP, CELL, AXES_TAG, SUPERSEDED = "obsdiff.sweep", "obsdiff.cell", "obsdiff.path", "obsdiff.superseded"
MEASURED, ROLE = "obsdiff.metrics", "obsdiff.role"
GRID_PICTURES = 36


def log_cell(client: MlflowClient, run: Run, folder: Path, cell: dict[str, Any], sources: Mapping[str, str]) -> None:
    """Carry one cell into its run, unless it is there.

    Args:
        folder: the cell's, with metrics.json, images/ and checkpoint/.
        cell: the content of metrics.json.
        sources: as content.data has it.
    """
    identity, before, measured = run.info.run_id, run.data.tags.get(MEASURED), cell_hash(cell)
    if run.info.status == "FINISHED" and before == measured:
        return
    manifest = json.loads((folder / "checkpoint" / "manifest.json").read_text())
    points = [*content.scalars(cell), *content.curves(cell, manifest)]
    stamp = int(1000 * (folder / "metrics.json").stat().st_mtime)
    if before is not None:
        points, stamp = store.news(client, run, points), int(1000 * time.time())
    store.log(client, identity, content.params(cell), points, stamp, content.tags(cell))
    store.insist(client.log_inputs, identity, content.data(cell, sources))
    client.log_image(identity, Image.fromarray(grid_of(folder, cell["prompts"])), "pictures.png")
    provenance = cell["provenance"]
    client.log_dict(identity, provenance["spec"], "spec.json")
    client.log_dict(identity, {k: provenance.get(k, {}) for k in ("versions", "machine")}, "environment.json")
    for file in (folder / "metrics.json", folder / "checkpoint" / "manifest.json"):
        client.log_artifact(identity, str(file))
    store.insist(client.set_tag, identity, MEASURED, measured)
    client.set_terminated(identity, "FINISHED")


def grid_of(folder: Path, prompts: Sequence[str]) -> np.ndarray:
    return strip(folder, prompts[:GRID_PICTURES], columns=12)


def supersede(client: MlflowClient, experiment: str, keys: dict[str, str], run: Run) -> None:
    """Tag the sweep's other runs of the same path, and say it in their names."""
    for older in store.find(client, experiment, keys):
        if older.info.run_id != run.info.run_id and SUPERSEDED not in older.data.tags:
            store.insist(client.set_tag, older.info.run_id, SUPERSEDED, run.info.run_id)
            client.update_run(older.info.run_id, name=f"{older.info.run_name} (superseded)")


def log_sweep(client: MlflowClient, parent: Run, records: list[dict], files: Sequence[Path], folder: Path) -> None:
    """The parent's summary; files under `folder` keep their place there among its artifacts."""
    identity = parent.info.run_id
    points = store.news(client, parent, list(sweep.summary(records)))
    note = sweep.description(records, parent.info.experiment_id)
    store.log(client, identity, {}, points, int(1000 * time.time()), {"mlflow.note.content": note})
    for file in files:
        inside = file.resolve().is_relative_to(folder.resolve())
        place = str(file.resolve().relative_to(folder.resolve()).parent) if inside else "."
        client.log_artifact(identity, str(file), None if place == "." else place)
    client.set_terminated(identity, "FINISHED")


def track(
    paths: Sequence[Path],
    name: str,
    experiment: str,
    files: Sequence[Path],
    results: Path,
    out: Path,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Carry every cell to MLflow and write {experiment, page, parent, runs: {cell path: run id}}.

    Args:
        paths: the cells' metrics.json files.
        name: the parent run's name.
        files: artifacts of the parent run.
        results: folder of the default store.
        out: JSON file.
        sources: as content.data has it.
    """
    records = [json.loads(path.read_text()) for path in paths]
    several, runs = sweep.several_models(records), {}
    with store.alone(results):
        client = store.client_of(results)
        home = store.experiment_id(client, experiment, results)
        parent = store.obtain(client, home, name, {SWEEP: name, ROLE: "sweep"}, {})
        for path, cell in zip(tqdm(paths, desc="tracking", unit="cell", mininterval=2), records, strict=True):
            place, called = cell_path(cell), sweep.name_of(cell, several)
            more = {"mlflow.parentRunId": parent.info.run_id, AXES_TAG: place, ROLE: "cell"}
            run = store.obtain(client, home, called, {SWEEP: name, CELL: cell["hash"]}, more)
            log_cell(client, run, path.parent, cell, sources or {})
            supersede(client, home, {SWEEP: name, AXES_TAG: place}, run)
            if run.info.run_name != called:
                client.update_run(run.info.run_id, name=called)
            runs[place] = run.info.run_id
        log_sweep(client, parent, records, files, out.parent)
        for key, state in views(records).items():
            store.insist(client.set_experiment_tag, home, key, state)
    side = out.with_suffix(".tmp")
    page = page_of(client.tracking_uri, home)
    side.write_text(json.dumps({"experiment": experiment, "page": page, "parent": parent.info.run_id, "runs": runs}))
    side.rename(out)
