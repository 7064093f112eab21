"""GPU leases, by processes of their own: no GPU is needed for a lock."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from obsdiff.errors import SpecError
from obsdiff.jobs import leases
from obsdiff.storage import locks

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from obsdiff.jobs.leases import lease
print(lease(sys.argv[1]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that leases a GPU, says which, and holds it until its input ends."""
    running = []

    def begin(device: str = "cuda", **environment: str) -> subprocess.Popen:
        clean = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
        environment = clean | {"OBSDIFF_LEASES": str(tmp_path), "CUDA_VISIBLE_DEVICES": "3,5"} | environment
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", HOLD, device]
        running.append(subprocess.Popen(command, env=environment, cwd=ROOT, **pipes))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_every_visible_gpu_is_held_by_one_process(start):
    first, second = said(start()), said(start())
    assert {first, second} == {"3", "5"}


def test_third_process_waits_until_one_is_killed(start):
    first, second = start(), start()
    held = {said(first), said(second)}
    third = start()
    assert "waiting for a GPU: other jobs hold 3, 5" in third.stderr.readline()
    time.sleep(0.7)
    assert third.poll() is None
    first.kill()
    assert said(third) in held
    assert second.poll() is None


def test_ended_process_gives_its_gpu_back(start):
    first = start(CUDA_VISIBLE_DEVICES="GPU-1/a")
    assert said(first) == "GPU-1/a"
    first.communicate()
    assert said(start(CUDA_VISIBLE_DEVICES="GPU-1/a")) == "GPU-1/a"


@pytest.mark.parametrize(
    ("device", "environment"),
    [
        ("cpu", {}),
        ("cuda:1", {}),
        ("cuda", {"SLURM_JOB_ID": "7"}),
        ("cuda", {"CUDA_VISIBLE_DEVICES": ""}),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "-1"}),
    ],
)
def test_nothing_is_leased(start, tmp_path, device, environment):
    assert said(start(device, **environment)) == "None" and not list(tmp_path.iterdir())


def test_leased_gpu_is_the_only_one_seen(monkeypatch, tmp_path):
    from obsdiff.jobs import leases

    monkeypatch.setenv("OBSDIFF_LEASES", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", " 2, 4")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(leases, "HELD", [])
    assert leases.lease("cuda") == "2" == os.environ["CUDA_VISIBLE_DEVICES"]
    assert leases.lease("cuda") is None and leases.visible() == ["2"]
    leases.HELD[0].close()


@pytest.mark.parametrize("command", ["prune", "generate", "profile", "measure"])
def test_commands_lease_before_they_open_anything(command, monkeypatch, tmp_path, capsys):
    from eval import __main__ as suite
    from obsdiff import __main__ as library
    from obsdiff import registry
    from obsdiff.errors import SpecError
    from obsdiff.jobs import leases

    def stop(device: str) -> None:
        raise SpecError(f"leased {device}")

    monkeypatch.chdir(tmp_path)
    package = "obsdiff.commands" if command == "prune" else "eval.commands"
    for module in (registry.load(package, command), leases):
        monkeypatch.setattr(module, "lease", stop)
    paths = {"checkpoint": "c", "prompts-file": "p", "out": "o", "profile": "f", "images": "i", "dense": "d"}
    paths |= {"reference": "r", "evaluator": "e", "cache": "h"}
    wanted = {
        "prune": ("out",),
        "generate": ("checkpoint", "prompts-file", "out"),
        "profile": ("checkpoint", "prompts-file", "out"),
        "measure": tuple(paths),
    }
    model = ["--model", "nowhere"] if command != "measure" else []
    more = ["--method", "magnitude"] if command == "prune" else []
    given = [part for key in wanted[command] for part in (f"--{key}", paths[key])]
    main = library.main if command == "prune" else suite.main
    assert main([command, *model, *more, *given, "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "error: leased cuda\n" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", sorted(locks.UNSUPPORTED))
def test_file_system_without_locks_leases_nothing_and_says_so(number, monkeypatch, tmp_path, capsys):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    monkeypatch.setenv("OBSDIFF_LEASES", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,4")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert leases.lease("cuda") is None and os.environ["CUDA_VISIBLE_DEVICES"] == "2,4"
    said = capsys.readouterr().err
    assert "this file system has no locks" in said and "GPUs are not shared out" in said
    with locks.locked(tmp_path / "x") as held:
        assert not held


def test_folder_for_leases_that_cannot_be_used_is_an_error_by_name(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OBSDIFF_LEASES", str(tmp_path / "file" / "x"))
    with pytest.raises(
        SpecError, match=r"OBSDIFF_LEASES: .*/file/x' cannot be made \(Not a directory\); name a folder"
    ):
        leases.folder()
