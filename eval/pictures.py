"""Picture files of any origin: found, hashed, and read one after the other or in batches, never all at once."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from eval.opening import FORMATS, SUFFIXES, open_picture
from obsdiff.errors import SpecError
from obsdiff.files import file_hash


def read_picture(path: Path) -> Tensor:
    """uint8 (3, h, w), RGB; SpecError as open_picture()."""
    return torch.from_numpy(np.array(open_picture(path))).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class PictureFiles:
    """Picture files in an order.

    Attributes:
        passed: of a folder, how many of its files are no pictures of the set, by reason.
    """

    paths: Sequence[Path]
    passed: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: "PictureFiles | Sequence[Path]") -> "PictureFiles":
        return paths if isinstance(paths, PictureFiles) else cls(paths)

    @classmethod
    def of_folder(cls, folder: Path) -> "PictureFiles":
        """All of a folder and its subfolders, links followed, by their paths within it.

        Raises:
            SpecError: there is none, or a file with a picture's suffix is not one.
        """
        paths, passed = [], Counter[str]()
        for path in sorted(files_below(folder), key=lambda p: p.relative_to(folder)):
            why = unfit(path, folder)
            if why is None:
                paths.append(path)
            else:
                passed[why] += 1
        if not paths:
            found = f" (of its {sum(passed.values())} files {', '.join(passed)})" if passed else ""
            raise SpecError(f"reference: {str(folder)!r} holds no PNG, JPEG, WebP, BMP, TIFF or GIF pictures{found}")
        return cls(paths, dict(sorted(passed.items())))

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
        """Files of one size as uint8 (b, 3, h, w), b ≤ `size`; SpecError where one is of another size."""
        for start in range(0, len(self), size):
            made = [read_picture(path) for path in self.paths[start : start + size]]
            for path, picture in zip(self.paths[start:], made, strict=False):
                if picture.shape != made[0].shape:
                    sizes = [f"{p.shape[2]}×{p.shape[1]}" for p in (picture, made[0])]
                    raise SpecError(f"pictures: {str(path)!r} is {sizes[0]}, {self.paths[start].name} {sizes[1]}")
            yield torch.stack(made)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file of a folder and its subfolders; of a folder that links lead to twice only one."""
    if not folder.is_dir():
        raise SpecError(f"reference: {str(folder)!r} is not a folder")
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        about = os.stat(place)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        yield from (Path(place, name) for name in names)


def unreadable(error: OSError) -> NoReturn:
    raise SpecError(f"reference: {error.filename!r} cannot be read ({error.strerror})")


def unfit(path: Path, folder: Path) -> str | None:
    """Why a file of a folder is not one of its pictures; None of a picture, SpecError of a damaged one."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden"  # AppleDouble files too, which have a picture's suffix
    if path.exists() and not path.is_file():
        return "not pictures"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=FORMATS).close()
    except UnidentifiedImageError:
        if path.suffix.lower() in SUFFIXES:
            open_picture(path)
        return "not pictures"
    except Exception:
        open_picture(path)
    return None
