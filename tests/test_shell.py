"""No value of a config is read by a shell, and every argument reaches its job as it was."""

import os
import subprocess
import sys

import pytest
from project import NASTY, ROOT, SNAKEMAKE

from eval.sweep.cells import flags, listed
from eval.sweep.config import read_sweep
from obsdiff.errors import SpecError


def test_a_sweep_runs_among_names_that_a_shell_would_take_apart(project):
    """Folder, results, model, prompts, images and evaluator of the shared project have such names; none was run."""
    assert "$(touch X)" in str(project.folder) and "$(touch X)" in project.results()
    assert (
        list(project.folder.glob("r *~/summary.md")) and (project.folder / project.results() / "report.html").is_file()
    )
    assert not [path for path in project.folder.parent.rglob("X") if path.name == "X"]


def test_every_shell_command_quotes_all_that_it_is_given():
    """A law over the rules: a field of a shell command is quoted, or a number of ours."""
    import re

    numbers = {"{threads}", "{params.threads}", "{params.shards}", "{params.table}", "{params.scale}"}
    commands = 0
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for command in re.findall(r"shell:\n((?:\s+\".*\"\n?)+)", path.read_text()):
            fields = re.findall(r"\{[^}]*\}", command)
            assert all(field.endswith(":q}") for field in fields if field not in numbers), (path.name, fields)
            assert "$(" not in command and "`" not in command
            commands += 1
    assert commands == sum(path.read_text().count("shell:") for path in (ROOT / "workflow/rules").glob("*.smk")) > 9


def test_options_reach_a_command_as_they_were():
    asked = {"a": NASTY, "b": [NASTY, "*"], "c": {"*.x": 0.5}, "d": "é\\"}
    assert list(flags(asked)) == ["--a", NASTY, "--b", NASTY, "*", "--c", "*.x", "0.5", "--d", "é\\"]


def test_thousands_of_files_are_listed_in_one(tmp_path):
    paths = [tmp_path / NASTY / str(i) / "metrics.json" for i in range(3000)]
    (tmp_path / "cells.txt").write_text("\n".join(map(str, paths)) + "\n")
    assert listed([tmp_path / "cells.txt"]) == paths and listed(paths[:2]) == paths[:2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in ("..", ".", "-n", "a/b", "a b", "$(x)", "", "é", "a\n", "x" * 81)),
        *(("models", [value]) for value in ("..", "../config", "a b", "$(x)")),
        *(("results", value) for value in ("", "a\nb", "a{b}", "-r", "a\x00", "\x1b[0m")),
    ],
)
def test_names_that_cannot_be_folders_are_refused(key, value, monkeypatch):
    import yaml

    monkeypatch.chdir(ROOT)
    base = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    with pytest.raises(SpecError, match=rf"config: {key}"):
        read_sweep(base | {key: value})


HOLD = """
import sys, time
from pathlib import Path
from eval.sweep.live import join
join(Path(sys.argv[1]))
print("in", flush=True)
time.sleep(float(sys.argv[2]))
"""


def started(folder, seconds: float = 60) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process


def test_locks_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    """Snakemake's lock files name no owner; who is alone may remove them, however the last run ended."""
    locks = tmp_path / "locks"
    locks.mkdir()
    first = started(tmp_path)
    assert first.stdout is not None and first.stdout.readline() == "in\n"
    (locks / "0.output.lock").write_text("results/x")
    second = started(tmp_path, 0)
    assert "Another snakemake is running" in second.communicate()[1]
    assert (locks / "0.output.lock").is_file()
    os.kill(first.pid, 9)
    first.communicate()
    third = started(tmp_path, 0)
    assert "The last run here was killed" in third.communicate()[1]
    assert not list(locks.iterdir())


def test_a_live_run_is_not_unlocked(project):
    holder = started(project.folder / ".snakemake")
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "in\n"
        done = subprocess.run([SNAKEMAKE, "--unlock"], cwd=project.folder, capture_output=True, text=True)
        assert done.returncode != 0 and "another snakemake is running in this folder; wait" in done.stdout + done.stderr
    finally:
        holder.kill()
        holder.communicate()
