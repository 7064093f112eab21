"""Tensors kept on disk under a hash of all that they were made from, so that one is computed once."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile, code_identity, hash_of, made_anew, replacing
from obsdiff.storage.locks import locked

KEY = "features"
LIBRARIES = ("torch", "torchvision", "pillow")
"""those that read and resize images for every network"""


def code_of(module: str, *libraries: str) -> str:
    """SHA-256 over what computes features: the module's file, whatever reads images, and the libraries' versions."""
    own = registry.ROOT / f"{module.replace('.', '/')}.py"
    return code_identity([own, *registry.closure("eval.images.image_files")], (*LIBRARIES, *libraries))


def cached(folder: Path, content: list[Any], rows: int, compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, or what it gave before for the same content; of several processes one computes.

    A file that is damaged is made again, with a line on standard error; a folder that cannot be written costs time
    only.

    Args:
        content: all that the tensor depends on, as JSON.
        rows: of the tensor, (rows, d).

    Raises:
        SpecError: what was computed holds NaN or infinity.
    """
    path = folder / f"{hash_of(json.dumps(content).encode())[:32]}.safetensors"
    with suppress(FileNotFoundError, DamagedFile):
        return load(path, rows)
    with locked(path.with_suffix(".lock")):
        try:
            return load(path, rows)
        except FileNotFoundError:
            pass
        except DamagedFile as error:
            made_anew(path, error)
        made = compute().contiguous()
        if not made.isfinite().all():
            bad = int((~made.isfinite().all(dim=1)).sum())
            raise SpecError(f"evaluator: {bad} of {rows} features are not finite; its weights are damaged")
        try:
            with replacing(path) as side:
                save_file({KEY: made}, side, {"sha256": digest(made)})
        except (OSError, SafetensorError) as error:
            print(f"{path} cannot be written ({error}); going on without", file=sys.stderr, flush=True)
        return made


def load(path: Path, rows: int) -> Tensor:
    """A tensor that cached() wrote.

    Raises:
        FileNotFoundError: it is not there.
        DamagedFile: it is not whole, or not of that many rows.
    """
    try:
        with safe_open(path, "pt") as file:
            found: Tensor = file.get_tensor(KEY)
            known = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedFile(f"it cannot be read: {error}") from None
    if found.ndim != 2 or len(found) != rows:
        raise DamagedFile(f"it holds {tuple(found.shape)} instead of {rows} rows")
    if known != digest(found):
        raise DamagedFile("its hash is not the recorded one")
    return found


def digest(tensor: Tensor) -> str:
    return hash_of(tensor.contiguous().view(torch.uint8).numpy().tobytes())
