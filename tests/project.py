"""A copy of the project that snakemake runs in, whose names a shell, a format string or a glob would take apart."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from eval.measure import timed
from obsdiff import registry

ROOT = Path(__file__).parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
LEFT_OUT = (".git", ".venv", ".snakemake", "results", "work", "tests", ".*_cache", ".hypothesis")
"""of a copy; compiled sources are kept, with the times of the sources"""
NASTY = "a b'c\"d$(touch X)`touch X`;&(é)*~"
"""of a folder or file; with {braces} where Snakemake need not read it as a pattern"""
MODEL: dict[str, Any] = {
    "family": "sd3",
    "source": {"model": f"model {{x}} {NASTY}"},
    "sampling": {
        "steps": 2,
        "guidance_scale": 2.0,
        "height": 32,
        "width": 32,
        "max_sequence_length": 0,
        "batch_size": 2,
    },
    "calibration": {"prompts": f"calibration {{x}} {NASTY}.csv", "count": 3},
    "evaluation": {
        "prompts": f"benchmark {{x}} {NASTY}.csv",
        "count": 6,
        "reference": f"reference {{x}} {NASTY}",
        "evaluator": f"clip {{x}} {NASTY}",
        "fid_references": ["cropped", "paired"],
    },
}
ALONE = ("--set-threads", "latency=1", "latency_of_cell=1")
"""timings do not wait to be alone on the machine: among tests they would not be, and none is looked at"""
GRID = {"method": ["magnitude", "obs_diff"], "sparsity": [0.5]}


PLANNER = """
import json, os, sys
import snakemake.cli, snakemake.api, snakemake.dag, snakemake.workflow
for line in sys.stdin:
    folder, out, argv = json.loads(line)
    if not (pid := os.fork()):
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = ["snakemake", *argv]
        snakemake.cli.main()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""runs a snakemake command a line, each in a process of its own that has nothing to import"""


@cache
def planner() -> subprocess.Popen[str]:
    """It ends when its input does."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", PLANNER], **pipes)
    atexit.register(process.communicate)
    return process


def planned(folder: Path, out: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of `snakemake --dry-run`, without the time in which snakemake is imported."""
    process = planner()
    assert process.stdin is not None and process.stdout is not None
    out.unlink(missing_ok=True)
    process.stdin.write(json.dumps([str(folder), str(out), ["--dry-run", *arguments]]) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline()), out.read_text()


class Project:
    """A copy of the project in a folder.

    Attributes:
        environment: of its snakemake; its jobs share a fork server (obsdiff/jobs/warm.py) with those of other folders.
        pruning: of its config.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, os.environ | environment
        self.pruning: dict[str, float] = {}

    def results(self, name: str = "results") -> str:
        """The results folder: of the sweep that all tests share, one with a nasty name."""
        return f"r {NASTY}" if name == "results" else name

    def command(
        self, *arguments: str, results: str = "results", blocks: list[dict[str, list]] | None = None, **grid: list
    ) -> list[str]:
        """Of a sweep over GRID and what `grid` changes of it, or over blocks."""
        config = self.folder / "config" / f"{results}.yaml"
        record: dict[str, Any] = {"models": ["tiny"], "results": self.results(results), "pruning": self.pruning}
        record["grid"] = GRID | grid if blocks is None else blocks
        config.write_text(yaml.safe_dump(record))
        return [SNAKEMAKE, "--cores", "2", *ALONE, "--configfile", str(config), *arguments]

    def run(self, *arguments: str, **config: Any) -> str:
        command = self.command(*arguments, **config)
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def plan(self, *arguments: str, ok: bool = True, **config: Any) -> str:
        """What a dry run says."""
        out = self.folder.parent / "dry-run.txt"
        status, said = planned(self.folder, out, *self.command(*arguments, **config)[1:])
        assert (status == 0) == ok, said
        return said

    def planned(self, **grid: Any) -> dict[str, int]:
        """Rule → number of jobs that a run would do now."""
        rows = re.findall(r"^(\w+) +(\d+)$", self.plan(**grid), re.M)
        return {rule: int(count) for rule, count in rows if rule != "total"}

    def summary(self, results: str = "results") -> pd.DataFrame:
        table = pd.read_csv(self.folder / self.results(results) / "summary.csv")
        return table[[c for c in table.columns if not timed(re.sub("_q[13]$", "", c))]]


def copied(parent: Path, environment: dict[str, str]) -> Project:
    """The project, a tiny model and its data under names of their own."""
    folder = parent / f"project {NASTY}"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    registry.load("obsdiff.models", "sd3").tiny().save_pretrained(folder / MODEL["source"]["model"])
    evaluation = MODEL["evaluation"]
    shutil.copy(folder / "zoo/emoji-data/benchmark.csv", folder / evaluation["prompts"])
    shutil.copy(folder / "zoo/emoji-data/calibration.csv", folder / MODEL["calibration"]["prompts"])
    shutil.copytree(folder / "zoo/emoji-data/reference", folder / evaluation["reference"])
    shutil.copytree(folder / "zoo/emoji-clip", folder / evaluation["evaluator"])
    (folder / "config/models/tiny.yaml").write_text(yaml.safe_dump(MODEL))
    return Project(folder, environment)
