"""Picture files: listed, hashed, and read one after the other or in batches, never all at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from obsdiff.errors import SpecError
from obsdiff.files import file_hash

SUFFIXES = (".jpeg", ".jpg", ".png")


def read_picture(path: Path) -> Tensor:
    """uint8 (3, h, w), RGB."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class PictureFiles:
    """PNG and JPEG files in an order."""

    paths: Sequence[Path]

    @classmethod
    def of(cls, paths: "PictureFiles | Sequence[Path]") -> "PictureFiles":
        return paths if isinstance(paths, PictureFiles) else cls(paths)

    @classmethod
    def of_folder(cls, folder: Path) -> "PictureFiles":
        """All of a folder's, by name; SpecError where it has none."""
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise SpecError(f"reference: {str(folder)!r} holds no PNG or JPEG pictures")
        return cls(found)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digests(self) -> list[str]:
        """SHA-256 of every file."""
        return [file_hash(path) for path in self.paths]

    @property
    def sha256(self) -> str:
        """One hash of all files, in order."""
        return sha256("".join(self.digests).encode()).hexdigest()

    def batches(self, size: int = 64) -> Iterator[Tensor]:
        """Files of one size as uint8 (b, 3, h, w), b ≤ `size`."""
        for start in range(0, len(self), size):
            yield torch.stack([read_picture(path) for path in self.paths[start : start + size]])
