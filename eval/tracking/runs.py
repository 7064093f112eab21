"""A sweep and its cells carried to MLflow: one parent run, one child per cell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import NAMESPACE_OID, uuid5

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.tracking.multimedia import compress_image_size
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
from PIL import Image
from tqdm import tqdm

from eval.results import CellResult
from eval.sweep.cells import cell_hash
from eval.tracking import content, store, sweep
from eval.tracking.pages import page_of
from obsdiff.storage.files import write_json

SWEEP, CELL, AXES_TAG, SUPERSEDED = "obsdiff.sweep", "obsdiff.cell", "obsdiff.path", "obsdiff.superseded"
MEASURED, ROLE = "obsdiff.metrics", "obsdiff.role"


def log_cell(
    client: MlflowClient, run: Run, folder: Path, cell: CellResult, sources: Mapping[str, str], ended: int
) -> None:
    """Carry one cell into its run, unless it is there.

    Args:
        folder: the cell's.
        cell: what was measured of it.
        sources: as in content.data.
        ended: milliseconds since 1970 at which it was measured.
    """
    identity, measured = run.info.run_id, cell_hash(cell.as_dict())
    if run.info.status == "FINISHED" and run.data.tags.get(MEASURED) == measured:
        return
    found = content.said(folder, cell, sources)
    store.log(client, run, found.params, found.points, found.tags)
    store.insist(client.log_inputs, identity, found.data)
    client.log_image(identity, found.pictures, "pictures.png")
    log_images(client, run, found.images)
    provenance = cell.provenance
    client.log_dict(identity, cell.spec, "spec.json")
    client.log_dict(identity, {k: provenance.get(k, {}) for k in ("versions", "machine")}, "environment.json")
    for file in (folder / "metrics.json", folder / "checkpoint" / "manifest.json"):
        client.log_artifact(identity, str(file))
    store.insist(client.set_tag, identity, MEASURED, measured)
    client.set_terminated(identity, "FINISHED", ended)


def log_images(client: MlflowClient, run: Run, images: Mapping[str, Image.Image]) -> None:
    """Images for MLflow's image grid, which shows those of one key across runs; logged again, they are there once.

    The files are named as log_image() names them, whose names differ from call to call.
    """
    with TemporaryDirectory() as place:
        for key, image in images.items():
            name = f"{key}+step+0+timestamp+{run.info.start_time}+{uuid5(NAMESPACE_OID, key)}"
            image.save(Path(place, f"{name}.png"))
            compress_image_size(image).save(Path(place, f"{name}+compressed.webp"))
        client.log_artifacts(run.info.run_id, place, "images")
    store.insist(client.set_tag, run.info.run_id, MLFLOW_LOGGED_IMAGES, True)


def supersede(client: MlflowClient, experiment: str, keys: dict[str, str], run: Run) -> None:
    """Tag the sweep's other runs of the same path, and say it in their names."""
    for older in store.find(client, experiment, keys):
        if older.info.run_id != run.info.run_id and SUPERSEDED not in older.data.tags:
            store.insist(client.set_tag, older.info.run_id, SUPERSEDED, run.info.run_id)
            client.update_run(older.info.run_id, name=f"{older.info.run_name} (superseded)")


def log_sweep(
    client: MlflowClient,
    parent: Run,
    records: list[CellResult],
    points: Sequence[store.Point],
    files: Sequence[Path],
    folder: Path,
    ended: int,
) -> None:
    """The parent's summary; files under `folder` keep their place there among its artifacts.

    Args:
        ended: milliseconds since 1970 at which its last cell was measured.
    """
    identity = parent.info.run_id
    note = sweep.description(records, parent.info.experiment_id)
    store.log(client, parent, {}, points, {"mlflow.note.content": note})
    for file in files:
        inside = file.resolve().is_relative_to(folder.resolve())
        place = str(file.resolve().relative_to(folder.resolve()).parent) if inside else "."
        client.log_artifact(identity, str(file), None if place == "." else place)
    client.set_terminated(identity, "FINISHED", ended)


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
        sources: as in content.data.

    Raises:
        SpecError: a file is damaged, before anything is logged; or the store cannot be used.
    """
    paths, runs = (
        sorted(paths),
        {},
    )  # sorted, so that sums over cells are the same bits, in whatever order they are tracked
    records = [CellResult.read(path) for path in paths]
    found = sweep.said(records, paths)
    spans = [content.times(path.parent) for path in paths]
    with store.opened(results, experiment) as (client, home):
        parent = store.obtain(client, home, name, {SWEEP: name, ROLE: "sweep"}, {}, min(begun for begun, _ in spans))
        progress = tqdm(paths, desc="tracking", unit="cell", mininterval=2)
        for path, cell, (begun, ended), (place, called) in zip(progress, records, spans, found.names, strict=True):
            more = {"mlflow.parentRunId": parent.info.run_id, AXES_TAG: place, ROLE: "cell"}
            run = store.obtain(client, home, called, {SWEEP: name, CELL: cell.hash}, more, begun)
            log_cell(client, run, path.parent, cell, sources or {}, ended)
            supersede(client, home, {SWEEP: name, AXES_TAG: place}, run)
            if run.info.run_name != called:
                client.update_run(run.info.run_id, name=called)
            runs[place] = run.info.run_id
        log_sweep(client, parent, records, found.points, files, out.parent, max(ended for _, ended in spans))
        for key, state in found.views.items():
            store.insist(client.set_experiment_tag, home, key, state)
    page = page_of(client.tracking_uri, home)
    write_json(out, {"experiment": experiment, "page": page, "parent": parent.info.run_id, "runs": runs})
