"""MLflow: a local store, a live server with a database and several writers at once; `python -m eval compare`."""

import copy
import functools
import json
import os
import random
import re
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
import synthetic
from apart import forked, track_at
from malformed import count
from PIL import Image
from synthetic import metric_of, result_of

from eval.__main__ import main as suite
from eval.model_metrics import Deviation, MeasuredLayer
from eval.results import CellResult
from eval.sweep import cells
from eval.tracking import content, database, store, sweep
from eval.tracking.runs import MEASURED, SUPERSEDED, track
from obsdiff import PruneSpec, Sampling
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
        "spec": spec_of(cell).canonical(),
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


def test_tracking_resumes_and_never_duplicates(tmp_path):
    out, chosen = tmp_path / "mlflow.json", grid("obs_diff")
    paths = [write(tmp_path, cell, 1.0) for cell in chosen]
    track(paths[:1], "sweep", "test", [], tmp_path, out)
    client = store.client_of(tmp_path)
    unfinished = json.loads(out.read_text())["runs"][chosen[0].path]
    client.update_run(unfinished, "RUNNING")
    for _ in range(2):
        track(paths, "sweep", "test", paths[:1], tmp_path, out)
    found = runs_of(tmp_path, "test")
    assert len(found) == 1 + len(chosen) and {r.info.status for r in found} == {"FINISHED"}
    parent = json.loads(out.read_text())["parent"]
    children = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent]
    assert {r.info.run_name for r in children} == {
        "dense",
        "obs_diff 0.50 log_decrease",
        "obs_diff 0.70 log_decrease",
    }
    assert unfinished in {r.info.run_id for r in children}
    record = json.loads(paths[0].read_text())
    record["metrics"]["fid"]["value"] = 0.5
    paths[0].write_text(json.dumps(record))
    track(paths, "sweep", "test", [], tmp_path, out)
    assert len(runs_of(tmp_path, "test")) == len(found) and client.get_run(unfinished).data.metrics["fid"] == 0.5
    assert len(client.get_metric_history(unfinished, "layers/error")) == LAYERS
    track([write(tmp_path, cell, 2.0) for cell in chosen], "sweep", "test", [], tmp_path, out)
    older = [r for r in runs_of(tmp_path, "test") if SUPERSEDED in r.data.tags]
    assert len(older) == len(chosen) and all(r.info.run_name.endswith("(superseded)") for r in older)
    assert len(runs_of(tmp_path, "test")) == 1 + 2 * len(chosen)


def test_runs_have_the_times_of_their_cells(tmp_path):
    """From the start of the pruning, told by its manifest, to the measurement; the sweep's run spans them all."""
    paths = [write(tmp_path, cell, 1.0) for cell in grid("obs_diff")]
    for i, path in enumerate(paths):
        manifest = path.parent / "checkpoint" / "manifest.json"
        report = Report(spec_of(cell_of("dense", "0.00")), {"pipeline": "c" * 64}, seconds={"total": 30.0})
        write_json(manifest, manifest_of(report, "float32", "d" * 64, 10).as_dict())
        os.utime(manifest, (1000.0 * (i + 1), 1000.0 * (i + 1)))
        os.utime(path, (1000.0 * (i + 1) + 60, 1000.0 * (i + 1) + 60))
    track(paths, "sweep", "test", [], tmp_path, tmp_path / "mlflow.json")
    found = {(r.info.start_time, r.info.end_time) for r in runs_of(tmp_path, "test")}
    cells_of_it = {(1_000_000 * (i + 1) - 30_000, 1_000_000 * (i + 1) + 60_000) for i in range(len(paths))}
    assert found == cells_of_it | {(970_000, 1_000_000 * len(paths) + 60_000)}


def test_images_of_one_caption_have_one_key_in_all_runs(tmp_path):
    """As MLflow's own image grid looks for them; a run that is logged again has them once."""
    paths = [write(tmp_path, cell, 1.0) for cell in grid("obs_diff")[:2]]
    track(paths, "sweep", "test", [], tmp_path, tmp_path / "mlflow.json")
    client = store.client_of(tmp_path)
    runs = json.loads((tmp_path / "mlflow.json").read_text())["runs"].values()
    for run in runs:
        client.set_tag(run, MEASURED, "old")
    track(paths, "sweep", "test", [], tmp_path, tmp_path / "mlflow.json")
    own = Image.fromarray(np.full((4, 4, 3), 255, np.uint8))
    client.log_image(next(iter(runs)), own, key="01 caption 0", step=0)
    keys = []
    for run in runs:
        assert client.get_run(run).data.tags["mlflow.loggedImages"] == "True"
        names = [Path(artifact.path).name for artifact in client.list_artifacts(run, "images")]
        keys.append([name.partition("+")[0] for name in names if name.endswith(".png")])
        form = r"[a-zA-Z0-9_\-. ]+\+step\+0\+timestamp\+\d+\+[0-9a-f-]{36}(\.png|\+compressed\.webp)"
        assert all(re.fullmatch(form, name) for name in names)
    assert sorted(keys[1]) == [f"{i + 1:02d} caption {i}" for i in range(len(PROMPTS))]
    assert sorted(keys[0]) == sorted([*keys[1], "01 caption 0"])
    assert content.key_of(3, "Héllo, <b>wörld</b>! $a/b") == "03 H llo b w rld b a b"
    assert len(content.key_of(1, "word " * 50)) <= content.LONGEST_KEY


@pytest.mark.parametrize("server", [False, True])
def test_run_that_was_never_settled_is_made_anew(tmp_path, monkeypatch, server):
    """Of a process that was killed between making and settling it; only on a server may it yet be settled."""
    monkeypatch.setattr(store, "ABANDONED_SECONDS", 0 if server else float("inf"))
    client = store.client_of(tmp_path)
    home = store.experiment_id(client, "test", tmp_path)
    for tags in ({"k": "v"}, {"k": "v", "path": 'it\'s "so"'}):
        left = client.create_run(home, tags=tags).info.run_id
        if server:
            monkeypatch.setattr(database, "file_of", lambda uri: None)
        made = store.obtain(client, home, "name", tags, {}).info.run_id
        assert made != left and store.obtain(client, home, "name", tags, {}).info.run_id == made
        assert [r.info.run_id for r in store.find(client, home, tags)] == [made]


def test_deleted_experiment_is_an_error_by_name(tmp_path):
    client = store.client_of(tmp_path)
    client.delete_experiment(store.experiment_id(client, "test", tmp_path))
    with pytest.raises(store.SpecError, match="experiment: 'test' was deleted"):
        store.experiment_id(client, "test", tmp_path)


def test_params_and_metrics_are_what_filters_and_charts_take():
    record = record_of(cell_of("obs_diff", "0.50"), 3.0)
    params = content.params(record)
    asked = {"method": "obs_diff", "sparsity": "0.50", "compensate": "true", "sampling.steps": str(STEPS), "seed": "0"}
    assert params.items() >= asked.items() and "prompts" not in params
    record.provenance["spec"]["layer_sparsity"] = {f"layer.{i}": 0.5 for i in range(2000)}
    assert max(map(len, content.params(record).values())) == content.LONGEST_PARAM
    scalars = {name: value for name, value, _ in content.scalars(record)}
    assert scalars["fid_low"] < scalars["fid"] == 3.0 < scalars["fid_high"] and scalars["denoiser_ms_q1"] == 2.0
    layers = [LayerReport(f"l{i}", (4, 4), 8, 0.2) for i in range(LAYERS)]
    points = list(content.curves(record, synthetic.manifest_of(layers=layers)))
    curves = {name: [v for n, v, _ in points if n == name] for name, _, _ in points}
    assert {name: len(values) for name, values in curves.items()} == {
        **dict.fromkeys(("layers/error", "layers/sparsity", "layers/weight_error"), LAYERS),
        **dict.fromkeys(("steps/alpha", "steps/deviation", "steps/block_deviation"), STEPS),
        "blocks/deviation": 2,
    }
    assert curves["steps/alpha"][0] == pytest.approx(1.2) and curves["steps/alpha"][-1] == pytest.approx(0.8)
    assert curves["blocks/deviation"] == [0.0, 0.5] and curves["steps/block_deviation"] == [0.25] * STEPS
    dense = record_of(cell_of("dense", "0.00"), 1.0)
    assert not content.alphas(dense.spec)
    assert all(len(d.dataset.digest) <= content.LONGEST_DIGEST for d in content.data(record, {}))
    assert [d.tags[0].value for d in content.data(dense, {})] == ["evaluation", "reference"]


def test_sweep_is_summarised_against_sparsity():
    values = {("magnitude", "0.50"): 4.0, ("obs_diff", "0.50"): 3.0, ("obs_diff", "0.70"): 6.0}
    records = [record_of(cell_of(*key, seed), v + int(seed)) for key, v in values.items() for seed in ("0", "1")]
    found = {(name, step): value for name, value, step in sweep.summary(records)}
    assert found["cells", 0] == 6 and found["best/fid", 50] == 3.0 and found["best/fid", 70] == 6.0
    assert found["fid/magnitude", 50] == 4.5 and found["fid/obs_diff log_decrease", 70] == 6.5
    note = sweep.description(records, "7")
    assert "| 0.7 | obs_diff 0.70 log_decrease | 6 |" in note and "#/experiments/7/runs?viewStateShareKey=" in note
    other = record_of(cell_of("wanda", "0.50", model="other"), 1.0)
    assert sweep.several_models([*records, other]) and sweep.name_of(other, True) == "other wanda 0.50 uniform"


def leaves(record: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths to all values of a JSON record, of long lists to the first two."""
    yield path
    keys = list(record) if isinstance(record, dict) else range(min(len(record), 2)) if isinstance(record, list) else ()
    for key in keys:
        yield from leaves(record[key], (*path, key))


def malformed(record: dict) -> Iterator[tuple[tuple, dict]]:
    """Every value of a record in turn left out, or of another type."""
    for path in list(leaves(record))[1:]:
        values: tuple[Any, ...] = (None, "x", "", [], {}, -1, 1e300, True, [[1]], "left out")
        for value in values:
            changed = copy.deepcopy(record)
            place = functools.reduce(lambda inner, key: inner[key], path[:-1], changed)
            if value == "left out":
                del place[path[-1]]
            else:
                place[path[-1]] = value
            yield path, changed


@pytest.mark.malformed
def test_malformed_record_is_carried_or_refused_by_name(tmp_path):
    path = write(tmp_path, cell_of("obs_diff", "0.50"), 1.0)
    chance, accepted, refused = random.Random(1), 0, 0
    for _, record in chance.sample(list(malformed(record_of(cell_of("obs_diff", "0.50"), 1.0).as_dict())), 400):
        path.write_text(json.dumps(record))
        try:
            found = CellResult.read(path)
            sweep.said([found], [path])
            content.said(path.parent, found, {})
            accepted += 1
            count("metrics.json", "read right")
        except store.SpecError as error:
            assert re.match(f"metrics: '?{path}'? ", str(error))
            refused += 1
            count("metrics.json", "refused")
    assert accepted > 20 and refused > 100


def test_server_that_does_not_answer_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    path = write(tmp_path, cell_of("dense", "0.00"), 1.0)
    where = ["--results", str(tmp_path)]
    commands = [
        ["track", "--metrics", str(path), "--sweep", "s", *where, "--out", str(tmp_path / "m.json")],
        ["ui", *where],
    ]
    for command in commands:
        assert suite(command) == 2
    assert suite(["compare", str(path), "0" * 32, *where]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: MLflow: http://127.0.0.1:1 failed (") for line in errors] == [True] * 3, errors


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


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a live server with SQLite behind it, and a folder of cells that five processes carried there."""
    root = tmp_path_factory.mktemp("served")
    with serving(root, f"sqlite:///{root}/server.db") as uri:
        carry(uri, root, 4)
        del os.environ["MLFLOW_TRACKING_URI"]
        yield uri, root


def wait_for(uri: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{uri}/health"):
                return
        except URLError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


def test_writers_at_once_make_each_run_once(served):
    assert_each_run_once(served[1], 4)


def test_damaged_or_incomplete_record_is_refused_before_anything_is_logged(tmp_path):
    paths = [write(tmp_path, cell, 1.0) for cell in grid("magnitude")]
    whole = paths[1].read_text()
    broken = {
        whole.replace('"value": 1.0', '"value": NaN', 1): "NaN is not a JSON number",
        whole.replace('"value": 1.0', '"value": -Infinity', 1): "-Infinity is not a JSON number",
        whole[: len(whole) // 2]: "not JSON",
        "": "it is empty",
        "[]": "is not of a cell",
        whole.replace('"metrics"', '"metric"', 1): "has no metrics",
    }
    for content_of, message in broken.items():
        paths[1].write_text(content_of)
        with pytest.raises(store.SpecError, match=f"metrics: '?{paths[1]}.*{message}.*run the sweep again"):
            track(paths, "sweep", "test", [], tmp_path, tmp_path / "out.json")
    paths[1].unlink()
    with pytest.raises(store.SpecError, match=r"metrics\.json' is not a file"):
        track(paths, "sweep", "test", [], tmp_path, tmp_path / "out.json")
    assert not (tmp_path / "mlflow.db").exists()


def test_filters_artifacts_and_data_sets_over_http(served):
    import mlflow

    uri, root = served
    client = store.client_of(root)
    home = client.get_experiment_by_name("live")
    text = "params.method = 'obs_diff' and params.sparsity = '0.50' and metrics.fid < 4.5 and metrics.fid_high > 0"
    found = client.search_runs([home.experiment_id], text)
    assert [r.info.run_name for r in found] == ["obs_diff 0.50 log_decrease"] * 2
    assert not client.search_runs([home.experiment_id], text.replace("4.5", "3.5"))
    parent = found[0].data.tags["mlflow.parentRunId"]
    under = client.search_runs([home.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
    assert found[0].info.run_id in {r.info.run_id for r in under}
    names = {a.path for a in client.list_artifacts(found[0].info.run_id)}
    assert names == {"pictures.png", "metrics.json", "manifest.json", "spec.json", "environment.json", "images"}
    for name, local in (("metrics.json", "metrics.json"), ("manifest.json", "checkpoint/manifest.json")):
        with urlopen(f"{uri}/get-artifact?path={name}&run_uuid={found[0].info.run_id}") as answer:
            sent = answer.read()
        assert sent == (root / "cells" / found[0].data.tags["obsdiff.path"] / local).read_bytes()
    inputs = {d.tags[0].value: d.dataset for d in found[0].inputs.dataset_inputs}
    assert set(inputs) == {"calibration", "evaluation", "reference"}
    assert inputs["evaluation"].digest == "b" * content.LONGEST_DIGEST
    assert mlflow.data.get_source(inputs["evaluation"]).uri == "zoo/b.csv"
    assert json.loads(home.tags["mlflow.sharedViewState.quality-0.50"])["searchFilter"].endswith("'0.50'")


def test_ui_says_where_the_cells_are(served, capsys, tmp_path, monkeypatch):
    uri, root = served
    page = json.loads((root / "0.json").read_text())["page"]
    assert store.runs_address(uri.replace("//", "//name:password@"), "7") == f"{uri}/#/experiments/7/runs"
    assert store.runs_address("sqlite:///mlflow.db", "7") == ""
    with pytest.raises(store.SpecError) as raised, store.answering("postgresql://me:secret@host/db"):
        raise OSError("cannot reach http://me:secret@host/api")
    assert "secret" not in str(raised.value) and "//host/db failed (cannot reach http://host/api)" in str(raised.value)
    assert page.startswith(f"{uri}/#/experiments/") and suite(["ui", "--experiment", "live"]) == 0
    assert page in capsys.readouterr().out
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert suite(["ui", "--results", str(tmp_path)]) == 2
    assert "mlflow.db is not there; run a sweep first (make results)" in capsys.readouterr().err


def test_compare_takes_folders_files_and_run_ids(served, capsys):
    _, root = served
    one, other = (root / "cells" / cell_of(m, "0.50").path for m in ("obs_diff", "magnitude"))
    runs = json.loads((root / "1.json").read_text())["runs"]
    printed = []
    for pair in ((one, other / "metrics.json"), (runs[cell_of("obs_diff", "0.50").path], other)):
        assert suite(["compare", *map(str, pair)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert (
        "first   emoji-sd3 obs_diff 0.50 log_decrease" in printed[0]
        and "second  emoji-sd3 magnitude 0.50" in printed[0]
    )
    row = next(line for line in printed[0].splitlines() if line.startswith("CLIP score"))
    assert row.split() == ["CLIP", "score", "(cosine)", "4.5", "2.5", "2", "2", "to", "2", "yes,", "better"]
    assert suite(["compare", str(one), str(one)]) == 0
    same = capsys.readouterr().out
    assert next(line for line in same.splitlines() if line.startswith("CLIP score")).endswith("no")


def test_compare_says_what_it_cannot_find_or_pair(served, capsys, tmp_path, monkeypatch):
    _, root = served
    parent = json.loads((root / "0.json").read_text())["parent"]
    known = str(root / "cells" / cell_of("dense", "0.00").path)
    seeded = str(write(tmp_path, cell_of("magnitude", "0.50", "1"), 1.0))
    (tmp_path / "other.json").write_text("{}")
    cases = {
        "nowhere": "run: 'nowhere' is not a file, a folder or a run id; give a cell's folder",
        str(tmp_path): "metrics.json' is not a file; give a cell's folder",
        str(tmp_path / "other.json"): "is not of a cell, it has no cell; remove it and run the sweep again",
        "0" * 32: "is not in the store of MLFLOW_TRACKING_URI",
        parent: "(one) carries no metrics.json; give that of a cell",
        seeded: "do not pair up",
    }
    for run, message in cases.items():
        assert suite(["compare", known, run]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert suite(["compare", known, "0" * 32, "--results", str(tmp_path)]) == 2
    assert "mlflow.db is not there; set MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
