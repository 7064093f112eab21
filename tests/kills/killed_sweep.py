"""A whole sweep killed at random moments until KILLS are spent, and started again each time: `make test-kills`.

Not collected by a plain run of pytest, because it takes minutes. SEED=7 draws the same victims and pauses as the run
that printed it; KILLS=100 kills more often.
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from eval.tracking import store

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
LONGEST_PAUSE, STUCK_SECONDS = 20.0, 400.0
EARLY = 0.2
"""share of kills whose pause counts from the start of snakemake; that of others counts from its first job"""
VICTIMS = ("all", "all", "snakemake", "job", "server")
GARBAGE = re.compile(r"\.tmp$|\.tmp-journal$|damaged|^progress$|-journal$|-wal$")


class Run:
    """snakemake in a process group of its own, and the processes that are killed."""

    def __init__(self, project: Any, results: str) -> None:
        self.project, self.results = project, results
        self.log = project.folder / f"{results}.log"
        self.process = self.begin()

    def begin(self) -> subprocess.Popen:
        self.told = self.log.stat().st_size if self.log.is_file() else 0
        with self.log.open("a") as log:
            command = self.project.command(results=self.results)
            return subprocess.Popen(command, cwd=self.project.folder, start_new_session=True, stdout=log, stderr=log)

    def pids(self, victim: str) -> list[int]:
        """Whom to kill: process groups are negative."""
        if victim in ("all", "snakemake"):
            return [-self.process.pid if victim == "all" else self.process.pid]
        mine = [p for p, line, folder in processes() if folder == self.project.folder and p != self.process.pid]
        if victim == "job":
            return [p for p, line, _ in processes() if p in mine and re.search(r"-m (eval|obsdiff) ", line)]
        return [p for p, line, _ in processes() if f"{self.project.folder}/obsdiff/jobs/forkserver.py" in line]

    def kill(self, victim: str, chance: random.Random) -> bool:
        found = self.pids(victim)
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            chosen = chance.choice(sorted(found))
            (os.killpg if chosen < 0 else os.kill)(abs(chosen), signal.SIGKILL)
            return True
        return False

    def wait_for_jobs(self) -> None:
        deadline = time.monotonic() + STUCK_SECONDS
        while b"Execute" not in self.log.read_bytes()[self.told :] and self.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def ended(self, seconds: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None


def processes() -> Iterator[tuple[int, str, Path]]:
    """Process id, command line and working directory of what runs."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(entry.name), line, (entry / "cwd").readlink()


def test_killed_sweeps_end_in_the_tables_of_an_undisturbed_one(project, capsys):
    chance, killed, sweeps = random.Random(SEED), dict.fromkeys(VICTIMS, 0), 1
    run = Run(project, "killed-1")
    while sum(killed.values()) < KILLS:
        if chance.random() > EARLY:
            run.wait_for_jobs()
        status = run.ended(chance.uniform(0.0, LONGEST_PAUSE))
        if status == 0:
            check(project, run.results)
            sweeps += 1
            run = Run(project, f"killed-{sweeps}")
        elif status is not None:
            assert "Traceback" not in run.log.read_text(), run.log.read_text()[-4000:]
            run.process = run.begin()
        else:
            victim = chance.choice(VICTIMS)
            killed[victim] += run.kill(victim, chance)
            print(sum(killed.values()), victim, run.results, flush=True)
    while (status := run.ended(STUCK_SECONDS)) != 0:
        assert status is not None and status < 2, run.log.read_text()[-4000:]
        run.process = run.begin()
    check(project, run.results)
    with capsys.disabled():
        by = ", ".join(f"{count} of {victim}" for victim, count in killed.items())
        print(f"\n{sum(killed.values())} kills ({by}), seed {SEED}: {sweeps} sweeps, tables equal")


def check(project: Any, results: str) -> None:
    """Tables as those of the undisturbed run, every run in MLflow once, no garbage."""
    pd.testing.assert_frame_equal(project.summary(results), project.summary(), check_exact=True)
    folder = project.folder / results
    garbage = [str(path.relative_to(folder)) for path in folder.rglob("*") if GARBAGE.search(path.name)]
    assert not garbage, garbage
    tracked = json.loads((folder / "mlflow.json").read_text())
    client = store.client_of(folder)
    found = client.search_runs([client.get_experiment_by_name(tracked["experiment"]).experiment_id])
    cells = [r.data.tags["obsdiff.cell"] for r in found if r.data.tags["obsdiff.role"] == "cell"]
    assert len(cells) == len(set(cells)) == len(tracked["runs"]) == len(project.summary())
    assert len(found) == len(cells) + 1 and {r.info.status for r in found} == {"FINISHED"}
