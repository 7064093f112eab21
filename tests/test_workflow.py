"""The DAG itself, on the tiny pipeline in a copy of the project: run, rerun, extend, edit, kill, continue."""

import json
import os
import re
import signal
import subprocess
import time
from typing import Any

import pandas as pd
import pytest
import yaml
from pipelines import made
from project import ALONE, MODEL, ROOT, SNAKEMAKE, planned

from obsdiff import PruneSpec, models, prune, registry


def test_run_ends_in_table_figures_and_runs(project):
    results = project.folder / project.results()
    table = project.summary()
    assert table["method"].tolist() == ["dense", "magnitude", "obs_diff"]
    assert table["measured_sparsity"].tolist() == [0.0, 0.5, 0.5]
    assert table["layer_error"][0] == 0 < table["layer_error"][2] < table["layer_error"][1]
    for name in ("summary.md", "figures/quality.svg", "figures/pictures.png", "mlflow.json", "mlflow.db"):
        assert (results / name).stat().st_size > 0
    drawn = {path.stem for path in (results / "figures").glob("*.svg")}
    every = set(registry.names("eval.figures")) - {"latency"}
    assert drawn == every, "the sweep has something to show on every figure but that of times"
    page = (results / "report.html").read_text()
    assert page.count("<figure>") == len(drawn) and 'src="http' not in page
    assert len(list(results.glob("cells/**/*.png"))) == 3 * 6


def test_second_run_does_nothing(project):
    assert "Nothing to be done" in project.run()


THEIRS = "their weights"
WIDE: dict[str, Any] = {
    "results": "wide",
    "blocks": [
        {"method": ["obs_diff"], "pattern": ["2:4", "structured"], "options": [{}, {"bias": True}], "packages": [1]},
        {"method": ["checkpoint"], "sparsity": [0.5], "options": [{"weights": THEIRS}]},
        {"models": ["aura"], "method": ["obs_diff"], "pattern": ["2:4", "structured"], "packages": [1]},
    ],
}
TABLE_ALONE = ("--", "wide/summary.csv")
SAID = "wide.log"
"""what snakemake said of it"""


@pytest.fixture(scope="module")
def wide(project) -> pd.DataFrame:
    """The table of a sweep over patterns, options, weights from elsewhere, and a model file without `family`.

    The model's class is one that obsdiff/models has no file for.
    """
    made("AuraFlow").save_pretrained(project.folder / "aura model")
    record = {key: value for key, value in MODEL.items() if key != "family"}
    record["sampling"] = {key: value for key, value in MODEL["sampling"].items() if key != "max_sequence_length"}
    (project.folder / "config/models/aura.yaml").write_text(
        yaml.safe_dump(record | {"source": {"model": "aura model"}})
    )
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    prune(pipe, PruneSpec(method="magnitude", sparsity=0.5))
    models.denoiser_of(pipe).save_pretrained(project.folder / THEIRS)
    (project.folder / SAID).write_text(project.run("--verbose", *TABLE_ALONE, **WIDE))
    return project.summary("wide")


def test_patterns_and_options_go_through_the_dag(project, wide):
    """N:M and structured, with and without bias compensation: pruned, drawn, timed, measured, in one table."""
    mine = (wide["model"] == "tiny") & (wide["method"] != "checkpoint")
    table = wide[mine].reset_index(drop=True)
    assert table["pattern"].tolist() == ["unstructured", "2:4", "2:4", "structured", "structured"]
    assert table["options"].tolist() == ["plain", "plain", "bias=true", "plain", "bias=true"]
    assert table["measured_sparsity"].tolist() == [0.0, 0.5, 0.5, 0.5, 0.5]
    assert (table["layer_error"][1:] > 0).all() and (table["layer_error"] < 1).all()
    assert table["checkpoint_mb"][1:].gt(0.01).all()
    assert table["timed_as"].tolist() == ["cell", "dense", "dense", "cell", "cell"]
    timed = pd.read_csv(project.folder / "wide/summary.csv")["speedup"][mine]
    assert timed.notna().tolist() == [True, False, False, True, True]
    assert (project.folder / "wide/figures/latency.svg").is_file()
    shared = project.folder / "wide/calibrations"
    for model in ("tiny", "aura"):
        assert len(list((shared / model).rglob("calibration.json"))) == 1, "all cells of a model share one calibration"
    cells = project.folder / "wide/cells/tiny"
    full, small = (
        json.loads(next((cells / part).rglob("profile.json")).read_text())["denoiser"]
        for part in ("dense", "obs_diff/structured")
    )
    assert small["nonzero"] < small["total"] == full["total"]


def test_jobs_are_looked_for_when_one_has_ended(project, wide):
    """Not once a second more for every job that has, which took a core of a long run."""
    said = (project.folder / SAID).read_text()
    looks, jobs = said.count("Ready jobs: "), said.count("Finished jobid: ")
    assert jobs > 20 and jobs / 2 < looks < 3 * jobs


def test_a_pipeline_without_a_file_goes_through_the_dag(project, wide):
    """Masks, and heads and neurons that are found while it samples: to the table, and no job twice."""
    table = wide[wide["model"] == "aura"].reset_index(drop=True)
    assert table["pattern"].tolist() == ["unstructured", "2:4", "structured"]
    assert table["measured_sparsity"].tolist()[:2] == [0.0, 0.5] and table["measured_sparsity"][2] > 0
    assert table["denoiser_tflops"][2] < table["denoiser_tflops"][1] == table["denoiser_tflops"][0]
    assert table["denoiser_tflops"].gt(0).all() and table["paper_tflops"].isna().all()
    assert 0 == table["layer_error"][0] < min(table["layer_error"][1:])
    assert "Nothing to be done" in project.plan(*TABLE_ALONE, **WIDE)
    said = project.plan("--config", "scale=tiny", results="aura", ok=False, models=["aura"])
    assert "scale: 'tiny' has no model in the place of 'aura'" in said


def test_given_weights_are_measured_as_the_method_that_made_them(project, wide):
    """A row of `method: checkpoint` has the numbers of the run whose weights it takes; edited ones are taken again."""
    given, own = (table.set_index("method") for table in (wide[wide["model"] == "tiny"], project.summary()))
    counted = ["measured_sparsity", "layer_error", "nonzero_parameters", "checkpoint_mb"]
    for name in [*given.columns.intersection(registry.names("eval.image_metrics")), *counted]:
        assert given.loc["checkpoint", name] == pytest.approx(own.loc["magnitude", name], nan_ok=True), name
    models.denoiser_of(registry.load("obsdiff.models", "sd3").tiny()).save_pretrained(project.folder / THEIRS)
    assert re.search(r"^prune +1$", project.plan(*TABLE_ALONE, **WIDE), re.M)
    nothing = {"method": ["checkpoint"], "options": [{"weights": "nothing here"}]}
    assert "grid.options.weights: 'nothing here' is neither" in project.plan(ok=False, results="given", **nothing)


def test_killed_run_continues_and_ends_in_the_same_table(project):
    """SIGKILL the whole run while a rule's log exists and its output does not, of one rule after the other."""
    results = project.folder / "killed"
    for victim in ("prune", "generate", "track"):
        logs = results / "logs" / victim
        before = set(logs.glob("**/*.log"))
        process = subprocess.Popen(
            project.command(results="killed", method=["obs_diff"]),
            cwd=project.folder,
            env=project.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 400
        while set(logs.glob("**/*.log")) <= before and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert set(logs.glob("**/*.log")) - before, f"{victim} never began"
        assert not (results / "mlflow.json").exists(), f"{victim} was over before it was killed"
    project.run(results="killed", method=["obs_diff"])
    expected = project.summary().query("method != 'magnitude'").reset_index(drop=True)
    pd.testing.assert_frame_equal(project.summary("killed"), expected, check_exact=True)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sparsity": [1.4]}, r"grid\.sparsity\.0: 1.4 is not allowed; give one < 1"),
        ({"method": ["wandaa"]}, r"method: 'wandaa' unknown; did you mean 'wanda'\?"),
    ],
)
def test_config_error_comes_before_any_job(project, grid, message):
    output = project.plan(ok=False, **grid)
    assert re.search(message, output) and "Traceback" not in output


def test_papers_table_at_tiny_scale(project, tmp_path):
    """A row of table 1 on a tiny model, from one command, among results of its own."""
    config = project.folder / "config/row.yaml"
    grid = {"method": ["obs_diff"], "sparsity": [0.5]}
    config.write_text(yaml.safe_dump({"name": "row", "paper": 1, "models": ["sd3-medium"], "grid": grid}))
    target = "results/tiny/sweeps/row/paper.md"
    command = [SNAKEMAKE, "--cores", "2", *ALONE, "--configfile", str(config), "--config", "scale=tiny", "--", target]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = project.folder / "results"
    table = pd.read_csv(results / "tiny/sweeps/row/paper.csv")
    mine = table.query("model == 'sd3-medium' and method == 'obs_diff' and sparsity == 0.5").set_index("metric")
    assert mine["paper"].to_dict() == {"fid": 27.20, "clip": 0.3167, "imagereward": 0.6468}
    assert mine["ours"].notna().tolist() == [True, True, False] and table["paper"].notna().all()
    assert "mean nothing" in (project.folder / target).read_text()
    assert not (results / "sweeps/row").exists() and not (results / "cells/sd3-medium").exists()
    assert "Nothing to be done" in planned(project.folder, tmp_path / "said", *command[1:])[1]


def test_papers_config_is_planned_at_tiny_scale(project, tmp_path):
    """Blocks, two patterns and layers left out, without data and checkpoints; at full scale the data are asked for."""
    arguments = ["--cores", "2", "--configfile", "config/paper/table5.yaml"]
    status, said = planned(project.folder, tmp_path / "said", *arguments, "--config", "scale=tiny")
    assert status == 0, said
    assert re.search(r"^prune +6$", said, re.M)
    status, said = planned(project.folder, tmp_path / "said", *arguments)
    assert status != 0 and "'data/gcc3m/Train_GCC-training.tsv' is not a file" in said


def test_snakemakes_own_report_is_one_page_without_addresses_to_fetch(project):
    project.run("--report", "workflow.html")
    page = (project.folder / "workflow.html").read_text()
    assert "one-shot pruning" in page
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?://", page)


def test_workflow_lint():
    done = subprocess.run([SNAKEMAKE, "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
