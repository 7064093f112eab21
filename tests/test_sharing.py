"""Shared calibrations: the same bits as without, refused where they are of anything else; and kills along the way."""

import json
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import PROMPTS, SAMPLING, spec_of

from obsdiff import calibrate, models, prune, registry
from obsdiff.__main__ import main
from obsdiff.calibration import stored, trajectory
from obsdiff.calibration.runs import Calibration
from obsdiff.checkpoints.checkpoint import read_pruned
from obsdiff.errors import SpecError
from obsdiff.storage.files import seal, write_json

SHORT = replace(SAMPLING, steps=2)
RUNS = [
    {"method": "obs_diff"},
    {"method": "obs_diff", "packages": 3, "exclude": ("*.0.*to_q",)},
    {"method": "obs_diff", "pattern": "structured"},
    {"method": "wanda", "sparsity": 0.7},
    {"method": "wanda", "pattern": "2:4", "bias": True},
    {"method": "wanda", "allocation": "owl"},
    {"method": "obs_diff", "allocation": "owl", "pattern": "neurons"},
    {"method": "magnitude"},
    {"method": "dense"},
]


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def tiny(name: str = "sd3"):
    return registry.load("obsdiff.models", name).tiny()


def spec(method: str = "obs_diff", **more):
    return spec_of(method, **{"packages": 1, "sampling": SHORT} | more)


def pruned(wanted, *args, name: str = "sd3", **more) -> dict[str, torch.Tensor]:
    pipe = tiny(name)
    prune(pipe, wanted, *args, **more)
    return models.denoiser_of(pipe).state_dict()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for packages in (1, "sequential"):
        made[str(packages)] = tmp_path_factory.mktemp("calibration")
        calibrate(tiny(), spec(packages=packages), made[str(packages)])
    return made


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(str(value) for value in run.values()))
def test_a_calibration_changes_no_bit_and_saves_sampling(run, folders, monkeypatch):
    wanted = spec(**run)
    expected, samplings, sample = pruned(wanted), [], Calibration.run

    def counted(self, rows, steps):
        samplings.append(rows)
        sample(self, rows, steps)

    monkeypatch.setattr(Calibration, "run", counted)
    assert same(expected, pruned(wanted, calibration=folders["1"]))
    batches, packages = 2, int(wanted.packages)
    assert len(samplings) == batches * (packages - 1)


def test_a_trajectory_serves_every_family_method_and_weighting(family, tmp_path, monkeypatch):
    name = family.__name__.rpartition(".")[2]
    calibrate(family.tiny(), spec("wanda", packages="sequential"), tmp_path)
    for method, more in (("obs_diff", {"pattern": "heads"}), ("sparsegpt", {"sparsity": 0.25})):
        wanted = spec(method, packages="sequential", **more)
        expected = pruned(wanted, name=name)
        with monkeypatch.context() as patch:
            patch.setattr(Calibration, "__post_init__", lambda self: pytest.fail("prompts were encoded"))
            assert same(expected, pruned(wanted, name=name, calibration=tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": PROMPTS[:2]}, "prompts differ: it is of other captions"),
        ({"sampling": replace(SHORT, guidance_scale=5.0)}, "sampling.guidance_scale differs: 3.0 there, 5.0 here"),
        ({"sampling": replace(SHORT, batch_size=3)}, "sampling.batch_size differs: 2 there, 3 here"),
        ({"seed": 4}, "seed differs: 0 there, 4 here"),
        ({"weighting": "uniform"}, "weighting differs: its weights of steps are not those of 'uniform'"),
        ({"packages": "sequential"}, "packages differs: it holds 'statistics', and packages: sequential takes 'traj"),
    ],
)
def test_another_runs_calibration_is_refused_by_key(change, message, folders):
    with pytest.raises(SpecError, match=f"calibration: .*: {message}.*run `obsdiff calibrate` again"):
        prune(tiny(), spec(**change), calibration=folders["1"])


def test_another_model_kind_or_version_is_refused(folders, tmp_path):
    pipe = tiny()
    with torch.no_grad():
        next(pipe.transformer.parameters()).mul_(1.5)
    for folder in folders.values():
        wanted = spec(packages="sequential" if folder == folders["sequential"] else 1)
        with pytest.raises(SpecError, match="model differs: it is of another transformer than this pipeline's"):
            prune(pipe, wanted, calibration=folder)
    calibrate(tiny(), spec("wanda"), tmp_path / "moments")
    with pytest.raises(SpecError, match="statistic differs: it holds moments, and this run takes hessian"):
        prune(tiny(), spec(), calibration=tmp_path / "moments")
    shutil.copytree(folders["1"], tmp_path / "old")
    record = json.loads((tmp_path / "old/calibration.json").read_text())
    write_json(tmp_path / "old/calibration.json", seal(record | {"versions": record["versions"] | {"torch": "1.0"}}))
    with pytest.raises(SpecError, match=r"versions\.torch differs: '1\.0' there"):
        prune(tiny(), spec(), calibration=tmp_path / "old")


@pytest.mark.parametrize(
    "name", ["calibration.json", "statistics-2.safetensors", "trajectory.json", "batch-2.safetensors"]
)
@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
def test_damaged_files_are_refused(name, damage, folders, tmp_path):
    kind = "1" if "statistics" in name else "sequential"
    folder = tmp_path / "copy"
    shutil.copytree(folders[kind], folder)
    data = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        middle = len(data) // 2
        (folder / name).write_bytes(data[:middle] + (b"" if damage == "cut" else b"0" + data[middle + 1 :]))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SpecError, match=r"calibration: .*run `obsdiff calibrate` again"):
        prune(tiny(), spec(packages=1 if kind == "1" else "sequential"), calibration=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "a reader changed the folder"


def test_what_cannot_be_shared_is_said(tmp_path):
    with pytest.raises(SpecError, match="method: 'magnitude' does not calibrate, so there is nothing to share"):
        calibrate(tiny(), spec("magnitude"), tmp_path / "a")
    with pytest.raises(SpecError, match="prompts: method 'wanda' calibrates and was given none"):
        calibrate(tiny(), spec("wanda", prompts=()), tmp_path / "b")
    with pytest.raises(SpecError, match=r"no calibration.json; it is not a calibration"):
        prune(tiny(), spec(), calibration=tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_made_anew_for_another_run(tmp_path):
    for packages in (1, "sequential", 1):
        calibrate(tiny(), spec(packages=packages), tmp_path)
        found = {path.name.partition("-")[0] for path in tmp_path.iterdir()}
        assert ("statistics" in found) == (packages == 1) and ("batch" in found) == (packages == "sequential")
        assert same(pruned(spec(packages=packages)), pruned(spec(packages=packages), calibration=tmp_path))
    assert stored.read_record(tmp_path)["content"] == "statistics"


@pytest.mark.parametrize("moment", [0, 1, 3, 6, 13])
@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_a_walk_killed_at_any_write_goes_on(pattern, moment, tmp_path, monkeypatch):
    """Before and after files of the trajectory and of packages are renamed into place; stopped calls are in files."""
    wanted = spec(packages="sequential", pattern=pattern, trajectory_memory="0GiB")
    rename, left = Path.replace, [moment]

    def dying(self: Path, target: Path) -> Path:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(Killed):
            prune(tiny(), wanted, tmp_path)
    assert same(pruned(wanted), pruned(wanted, tmp_path))


def test_packages_without_their_trajectory_are_made_again(tmp_path, monkeypatch, capsys):
    wanted = spec(packages="sequential")
    with monkeypatch.context() as patch:
        patch.setattr("obsdiff.checkpoints.progress.Progress.keep", killed_after(3))
        with pytest.raises(Killed):
            prune(tiny(), wanted, tmp_path)
    (tmp_path / "trajectory/batch-1.safetensors").write_bytes(b"")
    assert same(pruned(wanted), pruned(wanted, tmp_path))
    said = capsys.readouterr().err
    assert "batch-1.safetensors is damaged" in said and "sampling run is not there any more" in said


def test_time_of_a_sampling_run_that_is_taken_up_is_counted_once(tmp_path, monkeypatch):
    """By another calibration into the folder, and by a run that goes on; a run that goes on twice counts it once."""
    wanted = spec(packages="sequential")
    with monkeypatch.context() as patch:
        patch.setattr(trajectory, "time", SimpleNamespace(perf_counter=count(step=1000).__next__))
        calibrate(tiny(), wanted, tmp_path / "shared")
        patch.setattr("obsdiff.running.allocate", killed)
        with pytest.raises(Killed):
            prune(tiny(), wanted, tmp_path / "own")
    batches = -(-len(PROMPTS) // SHORT.batch_size)
    first = stored.read_record(tmp_path / "shared")
    calibrate(tiny(), wanted, tmp_path / "shared")
    again = stored.read_record(tmp_path / "shared")
    assert first["seconds"] < 1000 * batches < again["seconds"] < 1000 * batches + 500
    assert again["peak_memory_bytes"] >= first["peak_memory_bytes"]
    with monkeypatch.context() as patch:
        patch.setattr("obsdiff.checkpoints.progress.Progress.keep", killed_after(2))
        with pytest.raises(Killed):
            prune(tiny(), wanted, tmp_path / "own")
    found = prune(tiny(), wanted, tmp_path / "own").seconds
    for name in ("sample", "total"):
        assert 1000 * batches <= found[name] < 1000 * batches + 500, found


def killed(*args, **more):
    raise Killed


def killed_after(packages: int):
    from obsdiff.checkpoints.progress import Progress

    keep = Progress.keep

    def dying(self, *args) -> None:
        keep(self, *args)
        if self.done == packages:
            raise Killed

    return dying


def test_the_command_line(tmp_path, capsys):
    tiny().save_pretrained(tmp_path / "dense")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    common = ["--model", str(tmp_path / "dense"), "--prompts-file", str(tmp_path / "prompts.txt")]
    common += ["--steps", "2", "--height", "32", "--width", "32", "--max-sequence-length", "4", "--packages"]
    for packages in ("1", "sequential"):
        shared, options = str(tmp_path / f"shared-{packages}"), [*common, packages]
        assert main(["calibrate", *options, "--out", shared]) == 0
        assert f"{shared}: 3 prompts, " in capsys.readouterr().out
        files = []
        for name, more in (("with", ["--calibration", shared]), ("without", [])):
            out = tmp_path / f"{name}-{packages}"
            assert main(["prune", *options, "--out", str(out), *more]) == 0
            files.append((out / "weights.safetensors").read_bytes())
            assert not (out / "progress").exists() and read_pruned(out)
        assert files[0] == files[1]
    capsys.readouterr()
    wrong = [
        "prune",
        *common,
        "1",
        "--out",
        str(tmp_path / "out"),
        "--calibration",
        str(tmp_path / "shared-sequential"),
    ]
    assert main(wrong) == 2
    assert "packages differs: it holds 'trajectory'" in capsys.readouterr().err
