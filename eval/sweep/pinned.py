"""A checkpoint that several cells use, pruned once."""

import shutil
from pathlib import Path

from obsdiff.checkpoints.checkpoint import WEIGHTS
from obsdiff.checkpoints.manifest import MANIFEST, read_manifest
from obsdiff.errors import CheckpointError
from obsdiff.storage.files import file_hash, replacing


def share(checkpoint: Path, out: Path) -> None:
    """Copy a checkpoint into another cell's folder; its manifest comes last, so a folder that has one is whole.

    Args:
        checkpoint: folder of the checkpoint.
        out: folder, made if missing.

    Raises:
        CheckpointError: the copied weights are not those of the manifest.
    """
    expected = read_manifest(checkpoint).weights_sha256
    for name in (WEIGHTS, MANIFEST):
        with replacing(out / name) as side:
            shutil.copyfile(checkpoint / name, side)
            if name == WEIGHTS and file_hash(side) != expected:
                raise CheckpointError(f"{checkpoint / name}: damaged or altered; remove {checkpoint} and rerun")
