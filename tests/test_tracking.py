"""MLflow in a local store: runs, what they carry, and what is refused."""

import copy
import functools
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from malformed import count
from PIL import Image
from tracked import LAYERS, PROMPTS, STEPS, cell_of, grid, own_store, record_of, runs_of, spec_of, write

from eval.__main__ import main as suite
from eval.results import CellResult
from eval.tracking import content, database, store, sweep
from eval.tracking.runs import MEASURED, SUPERSEDED, track
from obsdiff.checkpoints.manifest import manifest_of
from obsdiff.report import LayerReport, Report
from obsdiff.storage.files import write_json

__all__ = ["own_store"]


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
