"""A live MLflow server with a database behind it and several writers at once; `python -m eval compare` and `ui`."""

import json
import os
from urllib.request import urlopen

import pytest
from tracked import assert_each_run_once, carry, cell_of, own_store, serving, write

from eval.__main__ import main as suite
from eval.tracking import content, store

__all__ = ["own_store"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a live server with SQLite behind it, and a folder of cells that five processes carried there."""
    root = tmp_path_factory.mktemp("served")
    with serving(root, f"sqlite:///{root}/server.db") as uri:
        carry(uri, root, 4)
        del os.environ["MLFLOW_TRACKING_URI"]
        yield uri, root


def test_writers_at_once_make_each_run_once(served):
    assert_each_run_once(served[1], 4)


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
