"""Measured cells to carry to MLflow, a live server, and several writers of it at once."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from apart import forked, track_at
from PIL import Image
from synthetic import metric_of, result_of

from eval.model_metrics import Deviation, MeasuredLayer
from eval.results import CellResult
from eval.sweep import cells
from eval.tracking import store, sweep
from eval.tracking.runs import MEASURED
from obsdiff import PruneSpec, Sampling
from obsdiff.canonical import canonical
from obsdiff.checkpoints.manifest import manifest_of
from obsdiff.report import LayerReport, Report
from obsdiff.storage.files import write_json

PROMPTS = [f"p{i}" for i in range(6)]
LAYERS, STEPS = 3, 4
START_SECONDS = 300


def cell_of(method: str, sparsity: str, seed: str = "0", model: str = "emoji-sd3") -> cells.Cell:
    weighting = "log_decrease" if method == "obs_diff" else "uniform"
    packages = "4" if method in ("obs_diff", "wanda", "sparsegpt") else "1"
    return cells.Cell(model, method, "unstructured", sparsity, weighting, packages, "plain", "plain", "plain", seed)


def spec_of(cell: cells.Cell) -> PruneSpec:
    about: dict[str, Any] = {
        "weighting": cell.weighting,
        "prompts": ("a",),
        "sampling": Sampling(steps=STEPS),
        "packages": 1,
    }
    return PruneSpec(method=cell.method, sparsity=cell.amount, **about)


def record_of(cell: cells.Cell, value: float) -> CellResult:
    """A cell whose FID is `value` and whose CLIP score differs from prompt to prompt."""
    metrics = {
        "fid": (value, np.random.default_rng(0).normal(value, 0.1, size=500)),
        "clip_score": np.linspace(0, 1, len(PROMPTS)) + value,
        "denoiser_ms": metric_of("denoiser_ms", value, quartiles=[value - 1, value + 1]),
    }
    provenance = {
        "spec": canonical(spec_of(cell)),
        "reference": {"count": 9, "folder": "zoo/real", "sha256": "a" * 64},
        "prompts": {"count": len(PROMPTS), "sha256": "b" * 64},
        "evaluator": {"name": "e"},
        "fid_features": None,
        "versions": {"torch": "2"},
        "machine": {"device": "CPU"},
    }
    deviation: dict[str, Any] = {
        "blocks": ["x", "y"],
        "by_block": [[0.0] * STEPS, [0.5] * STEPS],
        "latents": [0.25] * STEPS,
    }
    return result_of(
        cell,
        metrics,
        hash=cells.cell_hash({"cell": cell.path, "value": value}),
        provenance=provenance,
        prompts=len(PROMPTS),
        layers=[MeasuredLayer(name=f"l{i}", error=0.1 * i, sparsity=0.5) for i in range(LAYERS)],
        deviation=Deviation(**deviation),
    )


def write(root: Path, cell: cells.Cell, value: float) -> Path:
    folder = root / "cells" / cell.path
    for name in ("images", "checkpoint"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for prompt in PROMPTS:
        Image.new("RGB", (4, 4)).save(folder / "images" / f"{prompt}.png")
    removed = round(100 * cell.amount)
    layers = [LayerReport(f"l{i}", (10, 10), removed, 0.2) for i in range(LAYERS) if cell.amount]
    names = [[layer.name for layer in layers]] if layers else []
    report = Report(spec_of(cell), {"pipeline": "c" * 64}, layers=layers, packages=names)
    write_json(folder / "checkpoint" / "manifest.json", manifest_of(report, "float32", "d" * 64, 10).as_dict())
    record_of(cell, value).write(folder / "metrics.json")
    return folder / "metrics.json"


def grid(*methods: str) -> list[cells.Cell]:
    return [cell_of("dense", "0.00"), *(cell_of(m, s) for m in methods for s in ("0.50", "0.70"))]


CARRIED = grid("magnitude", "obs_diff")
"""cells that several processes carry to one server"""


def runs_of(results: Path, experiment: str) -> list:
    client = store.client_of(results)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


@pytest.fixture(autouse=True)
def own_store(request, monkeypatch):
    """A test's store is the live server's if it asks for one; MLflow keeps the last one in the environment."""
    if "served" in request.fixturenames:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("served")[0])
    yield
    import mlflow

    mlflow.set_tracking_uri(None)


@contextmanager
def serving(root: Path, database: str) -> Iterator[str]:
    """The address of a live MLflow server of this database, as this process's tracking URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    place = ["--backend-store-uri", database, "--artifacts-destination", str(root / "kept")]
    command = [sys.executable, "-m", "mlflow", "server", *place, "--port", uri.rpartition(":")[2], "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=log)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        wait_for(uri, server, root / "server.log")
        yield uri
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        server.terminate()
        server.wait()


def wait_for(uri: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{uri}/health"):
                return
        except URLError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


def carry(uri: str, root: Path, writers: int) -> None:
    """Processes carry cells to a server at once: the same sweep in other orders, and one that shares cells with it.

    Args:
        writers: how many carry the same one.
    """
    paths = [write(root, cell, 1.0 + i) for i, cell in enumerate(CARRIED)]
    jobs = [*(("one", paths[i % len(paths) :] + paths[: i % len(paths)]) for i in range(writers)), ("two", paths[2:])]
    running = []
    for i, (name, some) in enumerate(jobs):
        sources = {"emoji-sd3/evaluation": "zoo/b.csv"}
        running.append(forked(track_at, uri, some, name, "live", paths[:1], root, root / f"{i}.json", sources))
        running[-1].start()
    for writer in running:
        writer.join()
    assert not any(writer.exitcode for writer in running), (root / "server.log").read_text()[-3000:]


def assert_each_run_once(root: Path, writers: int) -> None:
    """What carry() leaves: each cell of each sweep is one finished run with all its points; all writers say which."""
    found = runs_of(root, "live")
    assert {r.info.status for r in found} == {"FINISHED"}
    parents = {r.info.run_id: r.info.run_name for r in found if r.data.tags["obsdiff.role"] == "sweep"}
    assert sorted(parents.values()) == ["one", "two"]
    children = [r for r in found if r.info.run_id not in parents]
    made = sorted((parents[r.data.tags["mlflow.parentRunId"]], r.info.run_name) for r in children)
    names = [sweep.name_of(record_of(cell, 1.0), False) for cell in CARRIED]
    assert made == sorted([*(("one", name) for name in names), *(("two", name) for name in names[2:])])
    client = store.client_of(root)
    for run in children:
        assert MEASURED in run.data.tags
        for name, points in (("layers/error", LAYERS), ("steps/deviation", STEPS), ("fid", 1)):
            assert len(client.get_metric_history(run.info.run_id, name)) == points
    records = [json.loads((root / f"{i}.json").read_text())["runs"] for i in range(writers)]
    assert all(record == records[0] for record in records)
    for parent in parents:
        curves = client.get_run(parent).data.metrics
        drawn = [(name, p.step) for name in curves for p in client.get_metric_history(parent, name)]
        assert len(drawn) == len(set(drawn)) > len(curves) > 0, "a point of the parent's curves is there once"
