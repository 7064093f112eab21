"""Finished packages of a pruning run on disk, so that a killed run goes on after them."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from obsdiff import models, packages, surgery
from obsdiff.packages import Unit
from obsdiff.report import LayerReport, Report, SiteReport
from obsdiff.surgery import State
from obsdiff.targets import Target

RECORD = "progress.json"


def base_hash(denoiser: nn.Module, units: list[Unit]) -> str:
    """SHA-256 over names, shapes and float32 bytes of the prunable weights: which dense model this is."""
    digest = sha256()
    for name in packages.layers(units):
        weight = models.linear(denoiser, name).weight
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def code_hash() -> str:
    """SHA-256 over the library's source: an edited one starts anew."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Progress:
    """What is on disk of one run.

    Attributes:
        done: finished packages.
    """

    def __init__(self, folder: str | Path | None, report: Report) -> None:
        self.folder = None if folder is None else Path(folder)
        self.report = report
        self.done = 0
        self.stamp = sha256(
            json.dumps([report.spec.canonical(), report.base, report.packages, code_hash(), torch.__version__]).encode()
        ).hexdigest()

    def restore(self, denoiser: nn.Module) -> list[list[float]] | None:
        """Put finished packages of this very run into the denoiser and the report; other runs' files are removed.

        Returns:
            The sparsities that were allocated, or None where the run starts at the beginning.
        """
        if self.folder is None:
            return None
        path = self.folder / RECORD
        record = json.loads(path.read_text()) if path.is_file() else {}
        if record.get("stamp") != self.stamp:
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        self.done = record["done"]
        for number in range(1, self.done + 1):
            stored = load_file(self.folder / f"package-{number}.safetensors")
            names = dict.fromkeys(key.rpartition(".")[0] for key in stored)
            states = {n: State(stored[f"{n}.weight"], stored.get(f"{n}.bias")) for n in names}
            surgery.install(denoiser, states, record["heads"][number - 1])
        for layer in record["layers"]:
            self.report.layers.append(LayerReport(**layer | {"shape": tuple(layer["shape"])}))
        self.report.sites += [SiteReport(**site) for site in record["sites"]]
        self.report.seconds.update(record["seconds"])
        self.report.statistics_bytes = record["statistics_bytes"]
        self.report.peak_memory_bytes = record["peak_memory_bytes"]
        amounts: list[list[float]] = record["amounts"]
        return amounts

    def keep(self, denoiser: nn.Module, package: Sequence[Target], amounts: list[list[float]]) -> None:
        """Write a finished package, its record last."""
        self.done += 1
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors, heads = {}, {}
        for target in package:
            for name in target.touched:
                for part, tensor in surgery.state_of(models.linear(denoiser, name))._asdict().items():
                    if tensor is not None:
                        tensors[f"{name}.{part}"] = tensor.cpu().contiguous()
            for owner in (site.owner for site in target.sites if site.owner):
                heads[owner] = denoiser.get_submodule(owner).heads
        save_file(tensors, self.folder / f"package-{self.done}.safetensors")
        path = self.folder / RECORD
        before = json.loads(path.read_text())["heads"] if self.done > 1 else []
        record = asdict(self.report)
        kept = ("layers", "sites", "seconds", "statistics_bytes", "peak_memory_bytes")
        side = path.with_suffix(".tmp")
        side.write_text(
            json.dumps(
                {key: record[key] for key in kept}
                | {"stamp": self.stamp, "done": self.done, "amounts": amounts, "heads": [*before, heads]}
            )
        )
        side.rename(path)
