"""Finished packages of a pruning run on disk, so that a killed run goes on after them.

    package-1.safetensors   the layers of the first package as pruned
    progress.json           which run they are of and, package by package, the file's hash and what happened
    trajectory/             of packages: sequential, the dense model's sampling run (see trajectory)

The record is written after each package's file. What is damaged is made again, and all that follows it.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from obsdiff import models, surgery
from obsdiff.calibration.trajectory import files_of
from obsdiff.canonical import canonical
from obsdiff.pipelines.identity import LIBRARIES
from obsdiff.report import LayerReport, Report, SiteReport
from obsdiff.storage.files import DamagedFile, code_identity, hash_of, made_anew, read_json, seal, sealed, write_json
from obsdiff.storage.folders import PROGRESS, claimed
from obsdiff.storage.tensors import read_tensors, write_tensors
from obsdiff.surgery import State
from obsdiff.targets import Target

FORMAT = 2
TRAJECTORY = "trajectory"


@contextmanager
def held(folder: str | Path | None) -> Iterator[None]:
    """A run's progress folder, kept from other runs for the block.

    Raises:
        SpecError: it holds something else, cannot be written to, or another run is writing to it.
    """
    if folder is None:
        yield
        return
    with claimed(Path(folder), PROGRESS, "progress"):
        yield


def discard(folder: Path) -> None:
    """Remove a run's files, and the folder if nothing else is in it."""
    for path in (*folder.glob("package-*.safetensors"), *folder.glob(".*.tmp"), folder / PROGRESS.record):
        path.unlink(missing_ok=True)
    for path in files_of(folder / TRAJECTORY):
        path.unlink(missing_ok=True)
    if (folder / TRAJECTORY).is_dir() and not any((folder / TRAJECTORY).iterdir()):
        (folder / TRAJECTORY).rmdir()
    (folder / PROGRESS.lock).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


class Progress:
    """What is on disk of one run.

    Attributes:
        done: finished packages.
    """

    def __init__(self, folder: str | Path | None, report: Report) -> None:
        self.folder = None if folder is None else Path(folder)
        self.report = report
        self.finished: list[dict[str, Any]] = []
        code = code_identity(Path(__file__).parents[1].rglob("*.py"), LIBRARIES)
        run = [canonical(report.spec), report.base, report.packages, code]
        self.stamp = hash_of(json.dumps(run, sort_keys=True).encode())

    @property
    def done(self) -> int:
        return len(self.finished)

    def complete(self, packages: int) -> bool:
        """Whether so many finished packages of this very run are there, undamaged."""
        if self.folder is None:
            return False
        try:
            record = read_json(self.folder / PROGRESS.record)
            if not self.current(record) or len(record["finished"]) != packages:
                return False
            for number, package in enumerate(record["finished"], 1):
                read_tensors(self.path(number), package["sha256"])
        except (FileNotFoundError, DamagedFile):
            return False
        return True

    def current(self, record: Any) -> bool:
        """Whether a record is whole, and of this very run."""
        whole = isinstance(record, dict) and record.get("format") == FORMAT and sealed(record)
        return whole and record["stamp"] == self.stamp

    def restore(self, denoiser: nn.Module, anew: bool = False) -> list[list[float]] | None:
        """Put finished packages of this very run into the denoiser and the report.

        Files of another run are removed, and those from the first damaged one on; standard error says so.

        Args:
            anew: finished packages are of no use, because what the others are made from is gone.

        Returns:
            The sparsities that were allocated, or None where the run starts at the beginning.
        """
        if self.folder is None:
            return None
        record = self.read(self.folder / PROGRESS.record)
        if anew and record["finished"]:
            made_anew(self.folder, "the dense model's sampling run is not there any more")
            record = {"finished": [], "amounts": None}
        for number, package in enumerate(record["finished"], 1):
            path = self.path(number)
            try:
                stored = read_tensors(path, package["sha256"])
            except DamagedFile as error:
                made_anew(path, error)
                break
            names = dict.fromkeys(key.rpartition(".")[0] for key in stored)
            states = {n: State(stored[f"{n}.weight"], stored.get(f"{n}.bias")) for n in names}
            surgery.install(denoiser, states, package["heads"])
            self.take(package)
        for stale in self.folder.glob("package-*.safetensors"):
            if stale not in {self.path(number) for number in range(1, self.done + 1)}:
                stale.unlink()
        amounts: list[list[float]] | None = record["amounts"]
        return amounts

    def read(self, path: Path) -> dict[str, Any]:
        """The record of this run, or an empty one."""
        nothing: dict[str, Any] = {"finished": [], "amounts": None}
        try:
            record = read_json(path)
        except FileNotFoundError:
            return nothing
        except DamagedFile as error:
            made_anew(path, error)
            return nothing
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            made_anew(path, f"it is not of format {FORMAT}")
        elif not sealed(record):
            made_anew(path, "its digest differs")
        elif record["stamp"] != self.stamp:
            print(f"{path} is of another run (spec, model or code differ); starting anew", file=sys.stderr, flush=True)
        else:
            return record
        return nothing

    def take(self, package: dict[str, Any]) -> None:
        """Add a package of the record to the report."""
        self.finished.append(package)
        self.report.layers += [LayerReport(**layer | {"shape": tuple(layer["shape"])}) for layer in package["layers"]]
        self.report.sites += [SiteReport.of(site) for site in package["sites"]]
        self.report.seconds.update(package["seconds"])
        self.report.statistics_bytes = package["statistics_bytes"]
        self.report.peak_memory_bytes = package["peak_memory_bytes"]

    def path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"package-{number}.safetensors"

    def keep(self, denoiser: nn.Module, package: Sequence[Target], amounts: list[list[float]]) -> None:
        """Write a finished package, its record last."""
        report = asdict(self.report)
        news: dict[str, Any] = {
            key: report[key][sum(len(before[key]) for before in self.finished) :] for key in ("layers", "sites")
        }
        news |= {key: report[key] for key in ("seconds", "statistics_bytes", "peak_memory_bytes")}
        if self.folder is not None:
            tensors, heads = {}, {}
            for target in package:
                for name in target.touched:
                    for part, tensor in surgery.state_of(models.linear(denoiser, name))._asdict().items():
                        if tensor is not None:
                            tensors[f"{name}.{part}"] = tensor
                for owner in (site.owner for site in target.sites if site.owner):
                    heads[owner] = denoiser.get_submodule(owner).heads
            news |= {"sha256": write_tensors(self.path(self.done + 1), tensors), "heads": heads}
            finished = [*self.finished, news]
            record = {"format": FORMAT, "stamp": self.stamp, "amounts": amounts, "finished": finished}
            write_json(self.folder / PROGRESS.record, seal(record))
        self.finished.append(news)
