"""A copy of the project that snakemake runs in, whose names a shell, a format string or a glob would take apart."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from eval.measure import timed
from obsdiff import registry

ROOT = Path(__file__).parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
LEFT_OUT = (".git", ".venv", ".snakemake", "results", "work", "__pycache__", "tests", ".*_cache", ".hypothesis")
NASTY = "a b'c\"d$(touch X)`touch X`;&(é)*~"
"""of a folder or file; with {braces} where Snakemake need not read it as a pattern"""
MODEL = {
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
    },
}
GRID = {"method": ["magnitude", "obs_diff"], "sparsity": [0.5]}


class Project:
    """A copy of the project in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pruning: dict[str, float] = {}

    def results(self, name: str = "results") -> str:
        """The results folder: of the sweep that all tests share, one with a nasty name."""
        return f"r {NASTY}" if name == "results" else name

    def command(self, *arguments: str, results: str = "results", **grid: list) -> list[str]:
        config = self.folder / "config" / f"{results}.yaml"
        record = {"models": ["tiny"], "results": self.results(results), "grid": GRID | grid, "pruning": self.pruning}
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
        table = pd.read_csv(self.folder / self.results(results) / "summary.csv")
        return table[[c for c in table.columns if not timed(re.sub("_q[13]$", "", c))]]


def copied(parent: Path) -> Project:
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
    return Project(folder)
