"""A sweep on a real Slurm of one node, killed and continued (`make test-slurm`); its tables are those of a local run.

Needs root, Debian's packages slurm-wlm and munge, and the executor plugin, which the target installs apart.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from project import LEFT_OUT, ROOT, SNAKEMAKE

from eval.measure import timed

NODE = Path(__file__).parent / "node.sh"
GRID = {"models": ["emoji-sd3"], "grid": {"method": ["magnitude", "obs_diff"], "sparsity": [0.5]}}
SMALL = ("--default-resources", "mem_mb=2000", "runtime=20", "--set-threads", "latency=1", "latency_of_cell=1")
QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--slurm-status-command", "squeue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the project. Its name is plain, because the plugin does not quote it."""
    made = tmp_path_factory.mktemp("slurm") / "project"
    shutil.copytree(ROOT, made, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (made / "mine.yaml").write_text(yaml.safe_dump(GRID | {"name": "mine"}))
    return made


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    place = tmp_path_factory.mktemp("node")
    subprocess.run([NODE, "up", place], check=True)
    yield
    subprocess.run([NODE, "down", place], check=True)


def command(results: str, *more: str) -> list[str]:
    config = ["--configfile", "mine.yaml", "--config", "scale=tiny", f"results={results}"]
    return [SNAKEMAKE, *more, *config]


def tables(folder: Path, results: str) -> pd.DataFrame:
    table = pd.read_csv(folder / results / "tiny/sweeps/mine/summary.csv")
    return table[[name for name in table.columns if not timed(name.removesuffix("_q1").removesuffix("_q3"))]]


def jobs() -> list[str]:
    listed = ["squeue", "--noheader", "--format", "%i"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.usefixtures("slurm")
def test_a_sweep_that_was_killed_goes_on_and_gives_the_tables_of_a_local_run(folder):
    by_slurm = command("cluster", "--profile", "profiles/slurm", *SMALL, *QUICK)
    logs = folder / "cluster/tiny/logs/prune"
    begun = subprocess.Popen(by_slurm, cwd=folder, start_new_session=True)
    deadline = time.monotonic() + 600
    while not list(logs.rglob("*.log")) and begun.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert begun.poll() is None, "the sweep ended before it could be killed"
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert jobs(), "Slurm has no job of the sweep that was killed"
    assert not (folder / "cluster/tiny/sweeps/mine/mlflow.json").exists()
    subprocess.run(by_slurm, cwd=folder, check=True, timeout=1500)
    subprocess.run(command("local", "--cores", "2"), cwd=folder, check=True, timeout=1500)
    pd.testing.assert_frame_equal(tables(folder, "cluster"), tables(folder, "local"), check_exact=True)
    again = subprocess.run([*by_slurm, "--dry-run"], cwd=folder, check=True, capture_output=True, text=True)
    assert "Nothing to be done" in again.stdout + again.stderr
