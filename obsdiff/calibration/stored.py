"""A folder that `obsdiff calibrate` wrote (sharing.py), checked against a run that is to use it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from obsdiff import allocations
from obsdiff.calibration.runs import alphas_of, begun, require_prompts
from obsdiff.calibration.trajectory import Trajectory
from obsdiff.errors import SpecError
from obsdiff.packages import Group
from obsdiff.pipelines.identity import Identity, different
from obsdiff.sampling import batched
from obsdiff.solver.statistics import Statistic
from obsdiff.spec import PruneSpec, stated
from obsdiff.storage.files import DamagedFile, hash_of, read_json, sealed
from obsdiff.storage.folders import CALIBRATION
from obsdiff.storage.tensors import read_tensors

FORMAT = 1
RECORD = CALIBRATION.record
VERSIONS = ("obsdiff", "torch", "diffusers", "transformers")
AGAIN = "run `obsdiff calibrate` again with the options of this run, or leave --calibration out"


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
