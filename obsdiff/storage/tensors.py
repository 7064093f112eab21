"""Tensors in safetensors files: written beside and renamed, and loaded from the very bytes that were hashed."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from obsdiff.storage.files import DamagedFile, file_hash, hash_of, replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, or nothing; returns its SHA-256.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    with replacing(path) as side:
        save_beside(side, tensors)
        return file_hash(side)


def save_beside(side: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Save to a file that replacing() gave, with texts in its header."""
    with full_disks_told(side):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, side, about)


@contextmanager
def full_disks_told(path: Path) -> Iterator[None]:
    """Make an input or output error of safetensors an OSError on `path`, as any other writer raises it."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file with that hash; it is read once, so that nothing changes between hash and load.

    Raises:
        DamagedFile: it is missing, unreadable, cut or altered.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedFile(f"{path}: {'missing' if not path.exists() else error.strerror}") from None
    if hash_of(data) != sha256:
        raise DamagedFile(f"{path}: truncated or altered (its SHA-256 is not the recorded one)")
    try:
        return load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise DamagedFile(f"{path}: not a safetensors file ({error})") from None
