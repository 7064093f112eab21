"""The DAG itself, on the tiny pipeline in a copy of the project: run, rerun, extend, edit, kill, continue."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from eval.measure import timed
from obsdiff import registry

ROOT = Path(__file__).parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
LEFT_OUT = (".git", ".venv", ".snakemake", "results", "work", "__pycache__", "tests", ".*_cache", ".hypothesis")
MODEL = {
    "family": "sd3",
    "source": {"model": "tiny"},
    "sampling": {
        "steps": 2,
        "guidance_scale": 2.0,
        "height": 32,
        "width": 32,
        "max_sequence_length": 0,
        "batch_size": 2,
    },
    "calibration": {"prompts": "zoo/emoji-data/calibration.csv", "count": 3},
    "evaluation": {
        "prompts": "zoo/emoji-data/benchmark.csv",
        "count": 6,
        "reference": "zoo/emoji-data/reference",
        "evaluator": "zoo/emoji-clip",
    },
}
GRID = {"method": ["magnitude", "obs_diff"], "sparsity": [0.5]}


class Project:
    """A copy of the project that snakemake runs in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, *arguments: str, results: str = "results", **grid: list) -> list[str]:
        config = self.folder / "config" / f"{results}.yaml"
        record = {"models": ["tiny"], "results": results, "grid": GRID | grid}
        config.write_text(yaml.safe_dump(record))
        return [SNAKEMAKE, "--cores", "2", "--configfile", str(config), *arguments]

    def run(self, *arguments: str, results: str = "results", ok: bool = True, **grid: list) -> str:
        done = subprocess.run(
            self.command(*arguments, results=results, **grid), cwd=self.folder, capture_output=True, text=True
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, **grid: list) -> dict[str, int]:
        """Rule → number of jobs that a run would do now."""
        rows = re.findall(r"^(\w+) +(\d+)$", self.run("--dry-run", **grid), re.M)
        return {rule: int(count) for rule, count in rows if rule != "total"}

    def summary(self, results: str = "results") -> pd.DataFrame:
        table = pd.read_csv(self.folder / results / "summary.csv")
        return table[[c for c in table.columns if not timed(re.sub("_q[13]$", "", c))]]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("clone") / "obsdiff"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    registry.load("obsdiff.models", "sd3").tiny().save_pretrained(folder / "tiny")
    (folder / "config/models/tiny.yaml").write_text(yaml.safe_dump(MODEL))
    made = Project(folder)
    made.run()
    return made


def test_run_ends_in_table_figures_and_runs(project):
    results = project.folder / "results"
    table = project.summary()
    assert table["method"].tolist() == ["dense", "magnitude", "obs_diff"]
    assert table["measured_sparsity"].tolist() == [0.0, 0.5, 0.5]
    assert table["layer_error"][0] == 0 < table["layer_error"][2] < table["layer_error"][1]
    for name in ("summary.md", "figures/quality.svg", "figures/pictures.png", "mlflow.json", "mlflow.db"):
        assert (results / name).stat().st_size > 0
    assert len(list(results.glob("cells/**/*.png"))) == 3 * 6


def test_second_run_does_nothing(project):
    assert "Nothing to be done" in project.run()


def test_added_sparsity_runs_only_its_cells(project):
    one_a_method = dict.fromkeys(("prune", "generate", "profile", "measure"), 2)
    assert project.planned(sparsity=[0.5, 0.7]) == one_a_method | {"summarise": 1, "track": 1, "all": 1}


def test_edited_method_reruns_only_its_cells(project):
    path = project.folder / "obsdiff/methods/magnitude.py"
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        one = dict.fromkeys(("prune", "generate", "profile", "measure", "summarise", "track", "all"), 1)
        assert project.planned() == one
    finally:
        path.write_text(before)
    assert project.planned() == {}


@pytest.mark.parametrize("victim", ["prune", "generate", "track"])
def test_killed_run_continues_and_ends_in_the_same_table(project, victim):
    """SIGKILL the whole run while the rule's log exists and its output does not."""
    results = f"killed-{victim}"
    process = subprocess.Popen(
        project.command(results=results, method=["obs_diff"]),
        cwd=project.folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    logs = project.folder / results / "logs" / victim
    deadline = time.monotonic() + 400
    while not list(logs.glob("**/*.log")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project.folder / results / "mlflow.json").exists(), f"{victim} was over before it was killed"
    project.run("--unlock", results=results, method=["obs_diff"])
    project.run(results=results, method=["obs_diff"])
    expected = project.summary().query("method != 'magnitude'").reset_index(drop=True)
    pd.testing.assert_frame_equal(project.summary(results), expected, check_exact=True)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sparsity": [1.4]}, r"grid\.sparsity\.0: 1.4 is not allowed; give one < 1"),
        ({"method": ["wandaa"]}, r"method: 'wandaa' unknown; did you mean 'wanda'\?"),
    ],
)
def test_config_error_comes_before_any_job(project, grid, message):
    output = project.run("--dry-run", ok=False, **grid)
    assert re.search(message, output) and "Traceback" not in output


def test_report_is_one_page_without_addresses_to_fetch(project):
    project.run("--report", "results/report.html")
    page = (project.folder / "results/report.html").read_text()
    assert "one-shot pruning" in page
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?://", page)


def test_workflow_lint():
    done = subprocess.run([SNAKEMAKE, "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
