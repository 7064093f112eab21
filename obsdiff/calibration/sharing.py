"""What of a pruning run does not depend on method, pattern and sparsity, in a folder that several runs use.

    calibration.json               what it is of, and every file's hash; written last
    statistics-1.safetensors       a group of layers: the sums over its inputs on the dense model, float32
    trajectory.json batch-*        in their place with packages: sequential, the sampling run (see trajectory)

Statistics are of all prunable layers, whatever the spec leaves out, and so serve every pattern, method and sparsity, as
the first of any number of packages. A folder with Hessians also holds the moments as they would be summed up alone,
so that what needs no Hessian gets the same bits.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from obsdiff import allocations, models
from obsdiff.calibration.runs import Calibration, alphas_of, begun, require_prompts
from obsdiff.calibration.trajectory import Trajectory, files_of
from obsdiff.devices import reset_peak_memory, stated_precision
from obsdiff.errors import SpecError
from obsdiff.packages import Group
from obsdiff.pipelines import guard
from obsdiff.pipelines.identity import Identity, different, identity_of
from obsdiff.pipelines.staging import Stage, staged
from obsdiff.report import peak_memory
from obsdiff.sampling import batched, steps_of
from obsdiff.solver.statistics import Statistic
from obsdiff.spec import PruneSpec, stated
from obsdiff.storage.files import DamagedFile, hash_of, read_json, seal, sealed, write_json
from obsdiff.storage.folders import CALIBRATION, claimed
from obsdiff.storage.tensors import read_tensors, write_tensors

FORMAT = 1
RECORD = CALIBRATION.record
STATISTIC_FILES = "statistics-*.safetensors"
VERSIONS = ("obsdiff", "torch", "diffusers", "transformers")
AGAIN = "run `obsdiff calibrate` again with the options of this run, or leave --calibration out"


@stated_precision()
@torch.no_grad()
def calibrate(pipe: Any, spec: PruneSpec, folder: str | Path, base: Identity | None = None) -> Path:
    """Write what prune(…, calibration=folder) needs of the dense model: its statistics or its sampling run.

    Args:
        pipe: the dense pipeline.
        spec: of one of the runs that will use it; method and weighting say which statistic, packages whether it is a
            sampling run, and sparsity, pattern and what is excluded do not matter.
        folder: made if missing; an earlier calibration is replaced.
        base: the pipeline's identity, if it is known.

    Raises:
        SpecError: the method does not calibrate, there are no prompts, or the folder cannot be used.
        LayerError: as prune().
        OSError: the disk is full.
    """
    with claimed(Path(folder), CALIBRATION):
        return write_calibration(pipe, spec, Path(folder), base)


def write_calibration(pipe: Any, spec: PruneSpec, folder: Path, base: Identity | None = None) -> Path:
    """calibrate() into a folder that is claimed already."""
    started, peak = time.perf_counter(), 0
    require_calibrating(spec)
    guard.check(pipe, spec.sampling, convolutions=True)
    base = base or identity_of(pipe)
    (folder / RECORD).unlink(missing_ok=True)
    with stated_precision(), torch.no_grad(), guard.eager(), staged(pipe) as stage:
        reset_peak_memory(stage.device)
        about = {"format": FORMAT, **about_of(spec, base)}
        if spec.sequential:
            for path in folder.glob(STATISTIC_FILES):
                path.unlink()
            trajectory = trajectory_of(spec, base, folder)
            if not trajectory.complete:
                trajectory.record(encoded(pipe, stage, spec), models.denoiser_of(pipe))
            about |= {"steps": trajectory.steps}
            started, peak = started - trajectory.spent, trajectory.peak
        else:
            for path in files_of(folder):
                path.unlink()
            about |= summed(pipe, stage, spec, folder)
        peak = max(peak, peak_memory(stage.device))
        about |= {"seconds": time.perf_counter() - started, "peak_memory_bytes": peak}
    write_json(folder / RECORD, seal(json.loads(json.dumps(about))))
    return folder


def require_calibrating(spec: PruneSpec) -> None:
    """Raise SpecError where there is nothing to calibrate, or nothing to do it with."""
    if not spec.calibrates:
        raise SpecError(f"method: {spec.method!r} does not calibrate, so there is nothing to share; run prune as it is")
    require_prompts(spec)


def encoded(pipe: Any, stage: Stage, spec: PruneSpec) -> Calibration:
    """The prompts, encoded; afterwards the denoiser is alone on the device."""
    stage.encoding(alone=models.denoiser_of(pipe).device != stage.device)
    calibration = Calibration(pipe, spec)
    stage.sampling()
    return calibration


def summed(pipe: Any, stage: Stage, spec: PruneSpec, folder: Path) -> dict[str, Any]:
    """Sample once, write a file of sums a group, and say what was written."""
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    calibration = encoded(pipe, stage, spec)
    kinds = ("moments", "hessian") if spec.statistic == "hessian" else ("moments",)
    groups = models.groups(family, denoiser)
    found = calibration.several(denoiser, groups, kinds, "calibrating the dense model")
    written = []
    for number, group in enumerate(groups, 1):
        tensors: dict[str, torch.Tensor] = {}
        numbers: dict[str, float] = {}
        for kind in kinds:
            for name, value in vars(found[kind].pop(group)).items():
                held: dict[str, Any] = tensors if isinstance(value, torch.Tensor) else numbers
                held[f"{kind}.{name}"] = value
        path = folder / f"statistics-{number}.safetensors"
        written.append({"layers": group, "numbers": numbers, "sha256": write_tensors(path, tensors)})
    for path in folder.glob(STATISTIC_FILES):
        if int(path.stem.rpartition("-")[2]) > len(written):
            path.unlink()
    steps = steps_of(pipe)
    return {"kinds": kinds, "steps": steps, "alphas": alphas_of(spec)(steps).tolist(), "groups": written}


def about_of(spec: PruneSpec, base: Identity) -> dict[str, Any]:
    """All that defines a folder's content beside statistic and weights of steps, key by key."""
    return {
        "content": "trajectory" if spec.sequential else "statistics",
        "model": base,
        "prompts": hash_of("\n".join(spec.prompts).encode()),
        "sampling": spec.sampling.record(),
        "seed": spec.seed,
        "versions": {name: version(name) for name in VERSIONS},
    }


def trajectory_of(spec: PruneSpec, base: Identity, folder: Path | None, own: bool = True) -> Trajectory:
    """The dense model's sampling run, as far as it is in the folder.

    Args:
        own: whether files of another run may be removed.
    """
    require_prompts(spec)
    stamp = hash_of(json.dumps(about_of(spec, base), sort_keys=True).encode())
    return Trajectory(folder, stamp, batched(len(spec.prompts), spec.sampling.batch_size), spec, own)


@dataclass(frozen=True)
class Folder:
    """A calibration that was checked against a run.

    Attributes:
        path: of the folder.
        record: its calibration.json.
    """

    path: Path
    record: Mapping[str, Any]

    def trajectory(self, spec: PruneSpec, base: Identity) -> Trajectory:
        """The sampling run that it holds; SpecError where a file is damaged."""
        found = trajectory_of(spec, base, self.path, own=False)
        if not found.complete:
            raise SpecError(f"calibration: {self.path}: files are damaged or missing; {AGAIN}")
        return found


class Stored:
    """Statistics of groups, each read from its file when it is popped."""

    def __init__(self, folder: Folder, denoiser: nn.Module, spec: PruneSpec, kind: str) -> None:
        self.folder, self.denoiser, self.spec, self.kind = folder, denoiser, spec, kind
        entries = enumerate(folder.record["groups"], 1)
        self.numbers = {name: (number, entry) for number, entry in entries for name in entry["layers"]}

    def pop(self, group: Group) -> Statistic:
        """A group's statistic, or that of the larger group that it is a part of: the input is the same.

        Raises:
            SpecError: the file is damaged.
        """
        number, entry = self.numbers[group[0]]
        try:
            tensors = read_tensors(self.folder.path / f"statistics-{number}.safetensors", entry["sha256"])
        except DamagedFile as error:
            raise SpecError(f"calibration: {error}; {AGAIN}") from None
        statistic = begun(self.denoiser, [group], self.kind, self.spec)[group]
        for name, empty in list(vars(statistic).items()):
            key = f"{self.kind}.{name}"
            setattr(statistic, name, tensors[key].to(empty.device) if key in tensors else entry["numbers"][key])
        return statistic


def opened(folder: Path, spec: PruneSpec, base: Identity) -> Folder | None:
    """A calibration for a run; None where the run does not calibrate and needs none.

    Raises:
        SpecError: it is missing, damaged, or of another run; the message says in what.
    """
    if not spec.calibrates:
        return None
    record = read_record(folder)
    for problem in differences(record, spec, base):
        raise SpecError(f"calibration: {folder}: {problem}; {AGAIN}")
    return Folder(folder, record)


def read_record(folder: Path) -> dict[str, Any]:
    """A folder's calibration.json.

    Raises:
        SpecError: it is missing, damaged, edited or of another format.
    """
    path = folder / RECORD
    try:
        record = read_json(path)
    except DamagedFile as error:
        raise SpecError(f"calibration: {error}; {AGAIN}") from None
    except OSError as error:
        cut = f"no {RECORD}; it is not a calibration, or its writing was interrupted"
        why = error.strerror if path.exists() else cut
        raise SpecError(f"calibration: {folder}: {why}; {AGAIN}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise SpecError(f"calibration: {path} is not of format {FORMAT}; {AGAIN}")
    if not sealed(record):
        raise SpecError(f"calibration: {path} was edited after it was written (its digest differs); {AGAIN}")
    return record


def differences(record: Mapping[str, Any], spec: PruneSpec, base: Identity) -> Iterator[str]:
    """In what a calibration is not the one that a run needs, the most telling first."""
    wanted = json.loads(json.dumps(about_of(spec, base)))
    if names := different(record["model"], base):
        yield f"model differs: it is of another {' and '.join(names)} than this pipeline's"
    for key in ("prompts", "sampling", "seed", "versions", "content"):
        here, there = wanted[key], record[key]
        if isinstance(here, dict):
            for name in sorted(here.keys() | there.keys()):
                if here.get(name) != there.get(name):
                    yield f"{key}.{name} differs: {there.get(name)!r} there, {here.get(name)!r} here"
        elif key == "prompts" and here != there:
            yield "prompts differ: it is of other captions, or of other ones among them"
        elif key == "content" and here != there:
            yield f"packages differs: it holds {there!r}, and packages: {spec.packages} takes {here!r}"
        elif here != there:
            yield f"{key} differs: {there!r} there, {here!r} here"
    if record["content"] != "statistics":
        return
    if alphas_of(spec)(record["steps"]).tolist() != record["alphas"]:
        yield f"weighting differs: its weights of steps are not those of {spec.weighting!r} with method {spec.method!r}"
    allocated = allocations.traits(stated(spec.allocation)).statistic
    for kind in (spec.statistic, allocated):
        if kind is not None and kind not in record["kinds"]:
            yield f"statistic differs: it holds {' and '.join(record['kinds'])}, and this run takes {kind}"
