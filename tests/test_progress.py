"""A pruning run that is killed, damaged, doubled or out of disk: it ends in the weights of an undisturbed one."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPTS, spec_of
from malformed import count

from obsdiff import SpecError, models, prune, registry, save_pruned
from obsdiff.__main__ import main
from obsdiff.checkpoints import progress
from obsdiff.checkpoints.checkpoint import read_pruned
from obsdiff.storage.files import seal

SPECS = {"mask": {"packages": 4}, "structured": {"packages": 4, "pattern": "structured"}}
ROOT = Path(__file__).parents[1]


class Killed(BaseException):
    pass


def tiny() -> Any:
    return registry.load("obsdiff.models", "sd3").tiny()


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = models.denoiser_of(pipe).state_dict()
    return found


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture(scope="module", params=SPECS)
def run(request, tmp_path_factory):
    """(spec, weights of an undisturbed run, its report, progress folder of a run that was killed after 3 of 4)."""
    spec, folder, whole = (
        spec_of("obs_diff", **SPECS[request.param]),
        tmp_path_factory.mktemp("run") / "progress",
        tiny(),
    )
    report = prune(whole, spec)
    keep = progress.Progress.keep

    def dying(self, *arguments):
        keep(self, *arguments)
        if self.done == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.Progress, "keep", dying)
        with pytest.raises(Killed):
            prune(tiny(), spec, folder)
    return spec, weights(whole), report, folder


def flip(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]


def reformed(data: bytes) -> bytes:
    record = json.loads(data)
    return json.dumps(seal({k: v for k, v in record.items() if k != "sha256"} | {"format": 1})).encode()


DAMAGES = {
    "record empty": ("progress.json", lambda data: b"", 0),
    "record cut": ("progress.json", lambda data: data[: len(data) // 2], 0),
    "record of no JSON": ("progress.json", lambda data: b"done: 3", 0),
    "record a list": ("progress.json", lambda data: b"[3]", 0),
    "record edited": ("progress.json", lambda data: data.replace(b'"damping": 0.01', b'"damping": 0.02', 1), 0),
    "record of another format": ("progress.json", reformed, 0),
    "package empty": ("package-2.safetensors", lambda data: b"", 1),
    "package cut": ("package-2.safetensors", lambda data: data[:-1], 1),
    "a bit flipped": ("package-1.safetensors", flip, 0),
    "package of no tensors": ("package-3.safetensors", lambda data: b"weights", 2),
    "package missing": ("package-2.safetensors", None, 1),
}


@pytest.mark.malformed
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_again_and_said(run, damage, tmp_path, capsys):
    spec, expected, report, killed = run
    folder, (name, change, kept) = tmp_path / "progress", DAMAGES[damage]
    shutil.copytree(killed, folder)
    if change is None:
        (folder / name).unlink()
    else:
        data = (folder / name).read_bytes()
        assert change(data) != data
        (folder / name).write_bytes(change(data))
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("package-*")}
    pipe = tiny()
    again = prune(pipe, spec, folder)
    told = [line for line in capsys.readouterr().err.splitlines() if "making it again" in line]
    assert len(told) == 1 and f"{folder / name} is damaged (" in told[0]
    assert same(weights(pipe), expected) and again.layers == report.layers and again.sites == report.sites
    count("progress of a pruning run", "read right")
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("package-*")}
    assert [n for n in sorted(after) if after[n] == before.get(n)] == [
        f"package-{i + 1}.safetensors" for i in range(kept)
    ]


def test_another_run_begins_anew_and_leaves_strangers_alone(run, tmp_path, capsys):
    spec, _, _, killed = run
    folder = tmp_path / "progress"
    shutil.copytree(killed, folder)
    (folder / "notes.txt").write_text("mine")
    prune(tiny(), spec_of("magnitude"), folder)
    assert "is of another run (spec, model or code differ); starting anew" in capsys.readouterr().err
    progress.discard(folder)
    assert os.listdir(folder) == ["notes.txt"]
    with pytest.raises(SpecError, match=r"progress: .* is not empty \(notes.txt\) and not the progress of"):
        prune(tiny(), spec, folder)
    assert os.listdir(folder) == ["notes.txt"]


def test_a_run_killed_at_any_write_goes_on(run, tmp_path, monkeypatch):
    """Before and after every file that is renamed into place, those of the checkpoint included."""
    spec, expected, report, _ = run
    rename = Path.replace
    for moment in range(100):
        folder, left = tmp_path / str(moment), [moment]

        def dying(self: Path, target: Path, left: list[int] = left) -> Path:
            if left[0] == 0:
                raise Killed
            found = rename(self, target)
            if left[0] == 1:
                raise Killed
            left[0] -= 2
            return found

        def whole(folder: Path = folder) -> None:
            pipe = tiny()
            save_pruned(pipe, folder, prune(pipe, spec, folder / "progress"))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            try:
                whole()
                break
            except Killed:
                pass
        whole()
        pruned = read_pruned(folder)
        assert not list(folder.rglob("*.tmp")) and pruned.manifest.as_dict()["layers"] == json.loads(
            json.dumps([vars(layer) for layer in report.layers])
        )
        assert all(torch.equal(expected[f"{name}.weight"], state.weight) for name, state in pruned.states.items())
    assert moment == 20  # two of each package's files, two of the checkpoint's, each before and after


@pytest.fixture
def command(tmp_path) -> list[str]:
    tiny().save_pretrained(tmp_path / "dense")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    sampling = {"steps": 12, "height": 32, "width": 32, "max-sequence-length": 4, "packages": "unit"}
    options = [text for key, value in sampling.items() for text in (f"--{key}", str(value))]
    return ["prune", "--model", str(tmp_path / "dense"), "--prompts-file", str(tmp_path / "prompts.txt"), *options]


def test_a_killed_process_and_a_second_run(command, tmp_path, capsys):
    out = tmp_path / "out"
    log = (tmp_path / "log").open("w")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "obsdiff", *command, "--out", str(out)]
    with subprocess.Popen(arguments, stdout=log, stderr=log, env=environment, cwd=ROOT) as process:
        while process.poll() is None and not (out / "progress/progress.json").is_file():
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        assert not (out / "manifest.json").exists(), (tmp_path / "log").read_text()
        assert main([*command, "--out", str(out)]) == 2
        assert f"error: out: {out} is in use by another run; wait for it" in capsys.readouterr().err
        process.kill()
    log.close()
    for folder in (out, tmp_path / "undisturbed"):
        assert main([*command, "--out", str(folder)]) == 0
    files = [(folder / "weights.safetensors").read_bytes() for folder in (out, tmp_path / "undisturbed")]
    assert files[0] == files[1] and not (out / "progress").exists()


def test_a_full_disk_is_one_line_and_leaves_what_was_there(command, tmp_path, capsys, monkeypatch):
    """A limit of file sizes stands for it: the kernel refuses the write in the middle of a file."""
    out, plain = tmp_path / "out", tmp_path / "plain"
    export = ["export", "--model", str(tmp_path / "dense"), "--checkpoint", str(out), "--out", str(plain)]
    assert main([*command, "--out", str(out)]) == 0 and main(export) == 0
    before = {path: path.read_bytes() for folder in (out, plain) for path in folder.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for arguments in ([*command, "--seed", "1", "--out", str(out)], export):
        capsys.readouterr()
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        try:
            code = main(arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and "File too large" in lines[0]
        assert str(tmp_path) in lines[0]
        assert all(path.read_bytes() == data for path, data in before.items())
        assert not list(tmp_path.rglob("*.tmp"))
