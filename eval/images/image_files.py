"""Image files of any origin: found, hashed, and read one after the other or in batches, never all at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.images.opening import images_below, open_image
from eval.images.views import View
from obsdiff.errors import SpecError
from obsdiff.storage.files import file_hash


@dataclass(frozen=True)
class ImageFiles:
    """Image files in an order.

    Attributes:
        passed: of a folder, how many of its files are no images of the set, by reason.
        view: what is done to each of them once it is opened.
    """

    paths: Sequence[Path]
    passed: Mapping[str, int] = field(default_factory=dict)
    view: View | None = None

    @classmethod
    def of(cls, paths: "ImageFiles | Sequence[Path]") -> "ImageFiles":
        return paths if isinstance(paths, ImageFiles) else cls(paths)

    @classmethod
    def of_folder(cls, folder: Path) -> "ImageFiles":
        """All of a folder and its subfolders, as images_below() finds them."""
        paths, passed = images_below(folder)
        return cls(paths, passed)

    def __len__(self) -> int:
        return len(self.paths)

    def seen_as(self, view: View) -> "ImageFiles":
        return replace(self, view=view)

    def open(self, path: Path) -> Image.Image:
        """One of them as RGB of 8 bits; SpecError as open_image()."""
        image = open_image(path)
        return image if self.view is None else self.view.of(image)

    def read(self, path: Path) -> Tensor:
        """One of them, uint8 (3, h, w); SpecError as open_image()."""
        return torch.from_numpy(np.array(self.open(path))).permute(2, 0, 1).contiguous()

    @cached_property
    def digests(self) -> list[str]:
        """SHA-256 of every file."""
        return [file_hash(path) for path in self.paths]

    @property
    def content(self) -> list[str]:
        """All that what is read depends on."""
        return self.digests if self.view is None else [*self.digests, self.view.text]

    @property
    def sha256(self) -> str:
        """One hash of all files, in order."""
        return sha256("".join(self.digests).encode()).hexdigest()

    def batches(self, size: int = 64) -> Iterator[Tensor]:
        """Files of one size as uint8 (b, 3, h, w), b ≤ `size`; SpecError where one is of another size."""
        for start in range(0, len(self), size):
            made = [self.read(path) for path in self.paths[start : start + size]]
            for path, image in zip(self.paths[start:], made, strict=False):
                if image.shape != made[0].shape:
                    sizes = [f"{p.shape[2]}×{p.shape[1]}" for p in (image, made[0])]
                    raise SpecError(f"images: {str(path)!r} is {sizes[0]}, {self.paths[start].name} {sizes[1]}")
            yield torch.stack(made)
