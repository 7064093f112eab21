"""Pruned weights on disk: a bitmask and the kept values of each layer, and a manifest that says what made them.

    weights.safetensors   <layer>.mask uint8, one bit a weight, row by row; <layer>.values the kept weights in order
    manifest.json         the Report, the file's SHA-256, library versions

A checkpoint is applied to the same dense pipeline it was made from; nothing is pickled.
"""

import json
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from obsdiff import models
from obsdiff.errors import CheckpointError
from obsdiff.pruning import Report, base_hash

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
VERSIONS = ("obsdiff", "torch", "diffusers", "transformers", "safetensors")


def pack(weight: Tensor) -> dict[str, Tensor]:
    """(rows, columns) → mask uint8 (⌈rows·columns/8⌉,) and the nonzero values in row order."""
    keep = weight.ne(0).flatten()
    bits = torch.from_numpy(np.packbits(keep.cpu().numpy()))
    return {"mask": bits, "values": weight.flatten()[keep].contiguous()}


def unpack(mask: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    rows, columns = shape
    keep = torch.from_numpy(np.unpackbits(mask.cpu().numpy(), count=rows * columns)).bool()
    weight = torch.zeros(rows * columns, dtype=values.dtype)
    weight[keep] = values
    return weight.view(shape)


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
    denoiser = models.family_of(pipe).denoiser(pipe)
    tensors = {}
    for layer in report.layers:
        for part, tensor in pack(models.linear(denoiser, layer.name).weight.detach().cpu()).items():
            tensors[f"{layer.name}.{part}"] = tensor
    save_file(tensors, folder / WEIGHTS)
    record = report.as_dict() | {
        "weights_sha256": file_hash(folder / WEIGHTS),
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
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def pruned_weights(folder: str | Path) -> dict[str, Tensor]:
    """Layer name → (rows, columns) weight, verified against the manifest's hash."""
    folder = Path(folder)
    record = read_manifest(folder)
    if not (folder / WEIGHTS).is_file() or file_hash(folder / WEIGHTS) != record["weights_sha256"]:
        raise CheckpointError(f"{folder / WEIGHTS}: missing, truncated or altered (SHA-256 differs from the manifest)")
    tensors = load_file(folder / WEIGHTS)
    return {
        layer["name"]: unpack(tensors[f"{layer['name']}.mask"], tensors[f"{layer['name']}.values"], layer["shape"])
        for layer in record["layers"]
    }


@torch.no_grad()
def load_pruned(pipe: Any, folder: str | Path) -> dict[str, Any]:
    """Apply a checkpoint to the dense pipeline it was made from, in place; returns the manifest.

    Raises:
        CheckpointError: the files are damaged, or the pipeline's dense weights are others.
    """
    record, weights = read_manifest(folder), pruned_weights(folder)
    family = models.family_of(pipe)
    denoiser = family.denoiser(pipe)
    if base_hash(denoiser, family.units(denoiser)) != record["base"]:
        raise CheckpointError(f"{folder}: made from other dense weights than this pipeline holds (or another dtype)")
    for name, weight in weights.items():
        models.linear(denoiser, name).weight.copy_(weight)
    return record
