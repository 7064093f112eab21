"""Pruned weights on disk: of each layer what stays, and a manifest that says what made them.

    weights.safetensors   <layer>.mask or .codes and .values (see packing), <layer>.weight where heads or neurons were
                          removed: the small weight; <layer>.bias where pruning changed it; of a refitted layer both
    manifest.json         see manifest.py

A checkpoint is applied to the same dense pipeline it was made from; nothing is pickled.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from obsdiff import models, patterns, surgery
from obsdiff.checkpoints.fitting import misfits, mismatches
from obsdiff.checkpoints.manifest import MANIFEST, Manifest, manifest_of, read_manifest
from obsdiff.checkpoints.packing import coded, pack, unpack
from obsdiff.checkpoints.pruned import Checkpoint
from obsdiff.errors import CheckpointError
from obsdiff.pipelines import guard
from obsdiff.pipelines.identity import Identity, identity_of
from obsdiff.report import LayerReport, Report
from obsdiff.storage.files import DamagedFile, file_hash, json_text, replacing
from obsdiff.storage.folders import CHECKPOINT, claimed
from obsdiff.storage.tensors import read_tensors, save_beside
from obsdiff.surgery import State

WEIGHTS = "weights.safetensors"


def n_m(pattern: str) -> dict[str, int]:
    """The packing's n and m of a spec's pattern."""
    return patterns.resolve(pattern).arguments


def save_pruned(pipe: Any, folder: str | Path, report: Report) -> Path:
    """Write what pruning changed; a checkpoint that was there stays whole until this one is.

    Args:
        pipe: the pruned pipeline.
        folder: made if missing.
        report: what prune() returned.

    Raises:
        SpecError: the folder is a model's, holds something else than a checkpoint, or cannot be written to.
        CheckpointError: the pipeline is not the one that the report is of.
        OSError: the disk is full.
    """
    with claimed(Path(folder), CHECKPOINT):
        return write_pruned(pipe, Path(folder), report)


def write_pruned(pipe: Any, folder: Path, report: Report) -> Path:
    """save_pruned() into a folder that is claimed already."""
    denoiser = models.denoiser_of(pipe)
    tensors: dict[str, Tensor] = {}
    for layer in report.layers:
        tensors |= packed(layer, surgery.state_of(models.linear(denoiser, layer.name)), report)
    for name in report.refitted:
        state = surgery.state_of(models.linear(denoiser, name))
        tensors |= {f"{name}.{part}": tensor for part, tensor in state._asdict().items() if tensor is not None}
    with replacing(folder / MANIFEST) as manifest, replacing(folder / WEIGHTS) as weights:
        save_beside(weights, tensors)
        dtype = str(denoiser.dtype).removeprefix("torch.")
        about = manifest_of(report, dtype, file_hash(weights), weights.stat().st_size)
        try:
            manifest.write_text(json_text(about.as_dict(), folder / MANIFEST, indent=1))
        except ValueError as error:
            raise CheckpointError(f"{error}; the pruned weights are of no use, look at the model's weights") from None
    return folder


def packed(layer: LayerReport, state: State, report: Report) -> dict[str, Tensor]:
    """A layer's tensors by their names in the file.

    Raises:
        CheckpointError: the layer is not pruned as its report says.
    """
    name, (rows, columns) = layer.name, layer.shape
    small = bool(report.sites)
    left = state.weight.numel() if small else int(state.weight.count_nonzero())
    if left > rows * columns - layer.removed:
        raise CheckpointError(
            f"{name}: {left} weights, and {rows * columns - layer.removed} should be left of {rows * columns}; "
            "give save_pruned the pipeline that prune() pruned, and the report that it returned"
        )
    parts = {"weight": state.weight} if small else pack(state.weight.cpu(), **n_m(report.spec.pattern))
    if state.bias is not None and (small or layer.bias_moved):
        parts["bias"] = state.bias
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def read_pruned(folder: str | Path) -> Checkpoint:
    """A checkpoint, checked against its own manifest.

    Raises:
        CheckpointError: a file is missing, damaged or edited, or the two are not of one run.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        tensors = read_tensors(folder / WEIGHTS, manifest.weights_sha256)
    except DamagedFile as error:
        raise CheckpointError(f"{error}; restore it or prune again") from None
    states = {}
    for layer in manifest.layers:
        try:
            states[layer.name] = taken(tensors, layer, manifest)
        except (KeyError, ValueError) as error:
            what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(f"{folder / WEIGHTS}: {layer.name!r}: {what}; prune again") from None
    refitted = {}
    for name in manifest.refitted:
        if f"{name}.weight" not in tensors:
            raise CheckpointError(f"{folder / WEIGHTS}: {name!r}: {name}.weight is missing; prune again")
        refitted[name] = State(tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias", None))
    if tensors:
        names = ", ".join(repr(name) for name in sorted(tensors)[:3])
        raise CheckpointError(f"{folder / WEIGHTS}: holds {names} of no layer in {MANIFEST}; prune again")
    return Checkpoint(states, refitted, manifest.sites, manifest=manifest)


def taken(tensors: dict[str, Tensor], layer: LayerReport, manifest: Manifest) -> State:
    """Take a layer's tensors out of a file's.

    Raises:
        KeyError: one is missing.
        ValueError: one does not fit the layer's entry in the manifest.
    """
    name, (rows, columns) = layer.name, layer.shape
    left, packing = rows * columns - layer.removed, n_m(manifest.spec["pattern"])
    if manifest.sites:
        weight = tensors.pop(f"{name}.weight")
        if weight.dim() != 2 or weight.numel() != left:
            raise ValueError(f"its weight is {tuple(weight.shape)}, and {left} weights should be left")
    else:
        names = ("codes" if coded(**{"n": 0, "m": 0} | packing) else "mask", "values")
        parts = {part: tensors.pop(f"{name}.{part}") for part in names}
        weight = unpack(parts, (rows, columns), **packing)
        if int(weight.count_nonzero()) > left:
            raise ValueError(f"has {int(weight.count_nonzero())} weights, and {left} should be left")
    moved = layer.bias_moved and not manifest.sites
    bias = tensors.pop(f"{name}.bias") if moved else tensors.pop(f"{name}.bias", None) if manifest.sites else None
    fits = bias is None or (bias.dtype, bias.shape) == (weight.dtype, weight.shape[:1])
    if not (weight.is_floating_point() and fits):
        raise ValueError("its weight is not floating-point, or its bias does not fit the weight")
    return State(weight, bias)


def read_for(pipe: Any, folder: str | Path, base: Identity | None = None, any_components: bool = False) -> Checkpoint:
    """A checkpoint that was made from this dense pipeline.

    Args and errors: as load_pruned().
    """
    guard.check(pipe)
    pruned = read_pruned(folder)
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    for problem in mismatches(pipe, pruned.manifest, base or identity_of(pipe), any_components):
        raise CheckpointError(f"{folder}: {problem}")
    for problem in misfits(pruned, family, denoiser):
        raise CheckpointError(f"{folder}: {problem}; prune again")
    return pruned


@torch.no_grad()
def load_pruned(pipe: Any, folder: str | Path, base: Identity | None = None, any_components: bool = False) -> Manifest:
    """Apply a checkpoint to the dense pipeline it was made from, in place; returns the manifest.

    Args:
        base: the dense pipeline's identity, if it is known (identity.identity_of_source); computed by default.
        any_components: check the denoiser alone, not the VAE, text encoders and the rest. The scheduler is never
            compared.

    Raises:
        CheckpointError: the files are damaged or edited, or the pipeline is not the one that they were made from.
        SpecError, LayerError: a checkpoint cannot be loaded into this pipeline as it is (see guard).
    """
    pruned = read_for(pipe, folder, base, any_components)
    denoiser = models.denoiser_of(pipe)
    pruned.install(models.family_of(pipe), denoiser)
    surgery.record(denoiser, pruned.kept)
    return pruned.manifest
