"""Pruned weights on disk: of each layer what stays, and a manifest that says what made them.

    weights.safetensors   <layer>.mask or .codes and .values (see packing), <layer>.weight where heads or neurons were
                          removed: the small weight; <layer>.bias where pruning changed it
    manifest.json         the Report, the file's SHA-256, library versions

A checkpoint is applied to the same dense pipeline it was made from; nothing is pickled.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from obsdiff import models, patterns, surgery
from obsdiff.devices import require_whole
from obsdiff.errors import CheckpointError
from obsdiff.packing import pack, unpack
from obsdiff.progress import base_hash
from obsdiff.report import Report
from obsdiff.staging import offload_of
from obsdiff.surgery import Site, State

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
VERSIONS = ("obsdiff", "torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class Pruned:
    """A checkpoint's content.

    Attributes:
        manifest: as written, see report.Report.
        states: layer → its parameters, at their small shapes; bias None where pruning left it.
    """

    manifest: dict[str, Any]
    states: dict[str, State]

    def sites(self, family: Any, denoiser: nn.Module) -> list[tuple[Site, Tensor]]:
        """The dense denoiser's sites that lost groups, and the (k,) int64 indices of those that stay."""
        kept = {(site["layer"], site["kind"]): torch.tensor(site["kept"]) for site in self.manifest["sites"]}
        if not kept:
            return []
        named = [((site.layers[0], site.kind), site) for site in family.sites(denoiser)]
        return [(site, kept[name]) for name, site in named if name in kept]

    def consumers(self, family: Any, denoiser: nn.Module) -> dict[str, State]:
        """Layers whose columns lost weights, at the dense model's shapes, removed columns zero."""
        found = dict(self.states)
        sites = self.sites(family, denoiser)
        for name in {name for site, _ in sites for name in site.layers}:
            del found[name]
        for layer in dict.fromkeys(stream.consumer.layer for site, _ in sites for stream in site.streams):
            columns = surgery.staying_columns(sites, layer, models.linear(denoiser, layer).in_features)
            small, bias = self.states[layer]
            weight = torch.zeros(len(small), len(columns), dtype=small.dtype)
            weight[:, columns] = small
            found[layer] = State(weight, bias)
        return found

    def install(self, family: Any, denoiser: nn.Module) -> None:
        """Put the pruned layers into the dense denoiser they were made from."""
        heads = {site.owner: len(kept) for site, kept in self.sites(family, denoiser) if site.owner}
        surgery.install(denoiser, self.states, heads)


def n_m(record: dict[str, Any]) -> dict[str, int]:
    """The packing's n and m of a manifest's pattern."""
    return patterns.resolve(record["spec"]["pattern"]).arguments


def save_pruned(pipe: Any, folder: str | Path, report: Report) -> Path:
    """Write what pruning changed. The manifest is written last, so a folder that has one is whole.

    Args:
        pipe: the pruned pipeline.
        folder: made if missing.
        report: what prune() returned.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    denoiser = models.denoiser_of(pipe)
    record = report.as_dict()
    tensors = {}
    for layer in report.layers:
        weight, bias = surgery.state_of(models.linear(denoiser, layer.name))
        if report.sites:
            tensors[f"{layer.name}.weight"] = weight.cpu().contiguous()
        else:
            parts = pack(weight.cpu(), **n_m(record))
            tensors |= {f"{layer.name}.{part}": tensor for part, tensor in parts.items()}
        if bias is not None and (report.sites or layer.bias_moved):
            tensors[f"{layer.name}.bias"] = bias.cpu().contiguous()
    save_file(tensors, folder / WEIGHTS)
    record |= {
        "weights_sha256": file_hash(folder / WEIGHTS),
        "weights_bytes": (folder / WEIGHTS).stat().st_size,
        "versions": {name: version(name) for name in VERSIONS},
    }
    side = folder / (MANIFEST + ".tmp")
    side.write_text(json.dumps(record, indent=1))
    side.rename(folder / MANIFEST)
    return folder


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {MANIFEST}; it is no pruned checkpoint, or its writing was cut short")
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        return {key: record[key] for key in ("spec", "base", "layers", "sites", "weights_sha256")} | record
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: is no manifest of a pruned checkpoint ({error!r}); prune again") from None


def read_pruned(folder: str | Path) -> Pruned:
    """A checkpoint, verified against its manifest's hash.

    Raises:
        CheckpointError: a file is missing, truncated or altered.
    """
    folder = Path(folder)
    record = read_manifest(folder)
    if not (folder / WEIGHTS).is_file() or file_hash(folder / WEIGHTS) != record["weights_sha256"]:
        raise CheckpointError(f"{folder / WEIGHTS}: missing, truncated or altered (SHA-256 differs from the manifest)")
    tensors = load_file(folder / WEIGHTS)
    states = {}
    for layer in record["layers"]:
        name = layer["name"]
        parts = {p: tensors[f"{name}.{p}"] for p in ("mask", "codes", "values") if f"{name}.{p}" in tensors}
        weight = unpack(parts, layer["shape"], **n_m(record)) if parts else tensors[f"{name}.weight"]
        states[name] = State(weight, tensors.get(f"{name}.bias"))
    return Pruned(record, states)


@torch.no_grad()
def load_pruned(pipe: Any, folder: str | Path) -> dict[str, Any]:
    """Apply a checkpoint to the dense pipeline it was made from, in place; returns the manifest.

    Raises:
        CheckpointError: the files are damaged, or the pipeline's dense weights are others.
        SpecError: the pipeline is sequentially offloaded.
    """
    require_whole(offload_of(pipe))
    pruned = read_pruned(folder)
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    if base_hash(denoiser, family.units(denoiser)) != pruned.manifest["base"]:
        raise CheckpointError(f"{folder}: made from other dense weights than this pipeline holds (or another dtype)")
    pruned.install(family, denoiser)
    surgery.record(denoiser, pruned.manifest["sites"])
    return pruned.manifest


def require_exportable(manifest: dict[str, Any]) -> None:
    """Raise CheckpointError where an ordinary diffusers folder cannot hold the pruned model."""
    for site in manifest["sites"]:
        if len(site["kept"]) < site["groups"]:
            raise CheckpointError(
                f"export: {site['layer']} has {len(site['kept'])} of {site['groups']} {site['kind']} left, which a "
                "diffusers config cannot say; keep the checkpoint, and open it with obsdiff.load_pruned"
            )


def export_pruned(pipe: Any, folder: str | Path, manifest: dict[str, Any]) -> Path:
    """Write a pruned pipeline as an ordinary diffusers folder, which from_pretrained opens without this library.

    Args:
        pipe: pruned by load_pruned() or prune().
        folder: made if missing.
        manifest: of the checkpoint; kept beside the weights as obsdiff.json.

    Raises:
        CheckpointError: heads or neurons were removed; a diffusers config cannot say how many each block has left.
    """
    require_exportable(manifest)
    folder = Path(folder)
    pipe.save_pretrained(folder)
    (folder / "obsdiff.json").write_text(json.dumps(manifest, indent=1))
    return folder
