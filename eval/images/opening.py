"""Images of any origin, found in folders, and each read as RGB of 8 bits. No torch in here.

What a file is, its content says: PNG, JPEG, WebP, BMP, TIFF and GIF (its first frame) are read. An image comes upright
by its EXIF, with white behind its transparent parts, and with more than 8 bits scaled down.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from obsdiff.errors import SpecError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Pillow's names"""
SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""of files that must be images; a file of another name may be one"""
UNREAD = (".avif", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".pgm", ".ppm", ".psd", ".svg", ".tga")
"""suffixes of images in formats that are not read"""
ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
WHITE = (255, 255, 255, 255)


def open_image(path: Path) -> Image.Image:
    """An image as RGB of 8 bits.

    Raises:
        SpecError: it is not an image, is damaged, too large to be read safely, or of values that have no scale.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow says of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return as_rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise SpecError(f"images: {str(path)!r} cannot be read: {reason(path, error)}") from None


def reason(path: Path, error: Exception) -> str:
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is not PNG, JPEG, WebP, BMP, TIFF or GIF"
    return " ".join(str(error).split()) or type(error).__name__


def as_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes → RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(scaled(np.asarray(image))).convert("RGB")
    if image.mode in ALPHA or "transparency" in image.info:
        own = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", own.size, WHITE), own).convert("RGB")
    return image.convert("RGB")


def scaled(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits → uint8: floats of 0 to 1, or integers of 16 or 32 bits, whichever holds them."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it holds NaN or infinity")
    top = 1.0 if values.dtype.kind == "f" else 65535.0 if high <= 65535 else 4294967295.0
    if low < 0 or high > top:
        raise ValueError(f"its values are {low:g} to {high:g}; scale them to 8 bits")
    return (values.astype(np.float64) * (255 / top)).round().astype(np.uint8)


def fault(image: np.ndarray) -> str | None:
    """`black` of an image without any light, `flat` of one in a single other colour: uint8 (h, w, 3)."""
    if not image.any():
        return "black"
    return "flat" if (image == image[0, 0]).all() else None


def images_below(folder: Path) -> tuple[list[Path], dict[str, int]]:
    """The images of a folder and its subfolders, links followed, in the order of their paths within it.

    Returns:
        The files, and how many others were passed over by reason.

    Raises:
        SpecError: there is none, or a file with an image's suffix is not one.
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
        raise SpecError(f"reference: {str(folder)!r} holds no PNG, JPEG, WebP, BMP, TIFF or GIF images{found}")
    return paths, dict(sorted(passed.items()))


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
    """Why a file of a folder is not one of its images; None of an image, SpecError of a damaged one."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden"  # AppleDouble files too, which have an image's suffix
    if path.exists() and not path.is_file():
        return "not images"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=FORMATS).close()
    except UnidentifiedImageError:
        if path.suffix.lower() in SUFFIXES:
            open_image(path)
        return "of formats that are not read" if path.suffix.lower() in UNREAD else "not images"
    except Exception:
        open_image(path)
    return None
