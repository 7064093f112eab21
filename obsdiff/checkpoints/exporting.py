"""A pruned pipeline as an ordinary diffusers folder, or its denoiser as one file."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from obsdiff import models
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.errors import CheckpointError, SpecError
from obsdiff.pipelines.sources import INDEX
from obsdiff.report import Report
from obsdiff.storage.files import SIDE, replacing, write_json
from obsdiff.storage.folders import EXPORT, claimed
from obsdiff.storage.tensors import full_disks_told, save_beside
from obsdiff.typed import is_int, require

HEADER = "obsdiff"
"""the text in a file's header that holds the manifest"""


def require_exportable(manifest: Manifest | Report) -> None:
    """Raise CheckpointError where an ordinary diffusers folder cannot hold the pruned model."""
    for site in manifest.sites:
        if len(site.kept) < site.groups:
            raise CheckpointError(
                f"export: {site.layer} has {len(site.kept)} of {site.groups} {site.kind} left, which a "
                "diffusers config cannot say; keep the checkpoint, and open it with obsdiff.load_pruned"
            )


def require_size(size: int | str | None) -> None:
    ok = size is None or (is_int(size) and int(size) > 0) or bool(re.fullmatch(r"\d+(\.\d+)?[KMGT]B", str(size)))
    require(ok, "max_shard_size", size, "a number of bytes, or a text such as 5GB")


def require_file(file: Path) -> None:
    """Raise SpecError where a denoiser must not be written to a file: a folder, or something else than an export."""
    if file.is_dir():
        raise SpecError(f"out: {file} is a folder; give a file that is not there, or a folder without .safetensors")
    if file.exists() and HEADER not in about_file(file):
        raise SpecError(f"out: {file} is not an exported denoiser, and would be overwritten; give another file")


def about_file(file: Path) -> dict[str, str]:
    """The texts in a safetensors file's header; none of another file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def left_out(pipe: Any) -> list[str]:
    """Components that the pipeline lacks and that from_pretrained must be told so, such as Stable Diffusion 3's T5."""
    required, _ = pipe._get_signature_keys(pipe)
    optional = set(pipe._optional_components)
    return [name for name in sorted(required) if getattr(pipe, name, None) is None and name not in optional]


def opened_by(pipe: Any, folder: Path) -> str:
    """The call that opens an exported pipeline without this library."""
    arguments = [repr(str(folder)), *(f"{name}=None" for name in left_out(pipe))]
    return f"DiffusionPipeline.from_pretrained({', '.join(arguments)})"


def export_pruned(
    pipe: Any, folder: str | Path, manifest: Manifest | Report, max_shard_size: int | str | None = None
) -> Path:
    """Write a pruned pipeline as an ordinary diffusers folder, which from_pretrained opens without this library.

    obsdiff.json beside the components holds the manifest and, as `opened_by`, the call that opens the folder: diffusers
    wants to be told which required components are left out. An earlier export is replaced, model_index.json last, so
    that a folder that has one is whole.

    Args:
        pipe: pruned by load_pruned() or prune().
        folder: made if missing.
        manifest: what load_pruned() or prune() returned.
        max_shard_size: bytes, or a text such as "5GB", from which a component's weights are split into several files;
            diffusers' own by default (10GB).

    Raises:
        SpecError: the folder is a model's, holds something else than an export, or cannot be written to; or
            max_shard_size is not a size.
        CheckpointError: heads or neurons were removed; a diffusers config cannot say how many each block has left.
        OSError: the disk is full; what was there before stays.
    """
    require_exportable(manifest)
    require_size(max_shard_size)
    folder = Path(folder)
    with claimed(folder, EXPORT):
        for stale in folder.glob(f".export-*{SIDE}"):
            shutil.rmtree(stale)
        side = Path(tempfile.mkdtemp(SIDE, ".export-", folder))
        try:
            with full_disks_told(folder):
                pipe.save_pretrained(side, max_shard_size=max_shard_size)
            write_json(side / EXPORT.record, {**manifest.as_dict(), "opened_by": opened_by(pipe, folder)}, indent=1)
            follow_umask(side)
            move_in(side, folder)
        finally:
            shutil.rmtree(side, ignore_errors=True)
    return folder


def export_denoiser(pipe: Any, file: str | Path, manifest: Manifest | Report) -> Path:
    """Write a pruned denoiser as one safetensors file, under diffusers' names and with the manifest in its header.

    diffusers reads it with the class's from_single_file(file, config=MODEL, subfolder=...), where MODEL is the dense
    model's folder, and so does this library (Source.single_file).

    Args:
        pipe: pruned by load_pruned() or prune().
        file: replaced if it is an earlier export; its folder is made if missing.
        manifest: what load_pruned() or prune() returned.

    Raises:
        SpecError: the file is another one, or a folder; or diffusers reads no single file of this denoiser.
        CheckpointError: heads or neurons were removed.
        OSError: the disk is full; what was there before stays.
    """
    file = Path(file)
    require_exportable(manifest)
    require_file(file)
    denoiser = models.denoiser_of(pipe)
    if not hasattr(type(denoiser), "from_single_file"):
        raise SpecError(
            f"out: diffusers reads no single file of a {type(denoiser).__name__}; give a folder, without .safetensors"
        )
    with replacing(file) as side:
        about = {"format": "pt", HEADER: json.dumps(manifest.as_dict())}
        save_beside(side, denoiser.state_dict(), about)
    return file


def read_by(pipe: Any, file: Path, model: str) -> str:
    """The call that reads an exported denoiser without this library."""
    name = models.family_of(pipe).TRAITS.denoiser
    cls = type(models.denoiser_of(pipe)).__name__
    return f"{cls}.from_single_file({str(file)!r}, config={model!r}, subfolder={name!r})"


def follow_umask(side: Path) -> None:
    """Give all files and folders the modes that the umask gives new ones; mkdtemp and safetensors write 0600."""
    mode = (side / EXPORT.record).stat().st_mode & 0o666
    for path in side.rglob("*"):
        path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def move_in(side: Path, folder: Path) -> None:
    """Put a finished export into its folder, the index last."""
    (folder / INDEX).unlink(missing_ok=True)
    for part in sorted(side.iterdir(), key=lambda path: path.name == INDEX):
        target = folder / part.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        part.replace(target)
