"""Weight files of a model folder, read before the weights are: which they are, and the headers of safetensors files."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from obsdiff.errors import SpecError
from obsdiff.pipelines.sources import AGAIN, read_record

Shapes = dict[str, tuple[int, ...]]
LFS = b"version https://git-lfs"
"""how the small text begins that stands for a large file which Git LFS has not fetched"""


def weight_files(place: Path, diffusers: bool, variant: str | None, exact: bool) -> list[Path]:
    """The safetensors files that from_pretrained will read; none where only files of another format are there.

    Args:
        diffusers: whose names they have: diffusers' or transformers'.

    Raises:
        SpecError: none at all, or not of this variant, or a shard is missing.
    """
    stem = "diffusion_pytorch_model" if diffusers else "model"
    there = sorted(path.name for path in place.iterdir() if path.suffix in (".safetensors", ".bin"))
    if variant and not has_variant(place, variant):
        if exact:
            raise SpecError(
                f"variant: {variant!r} is not among the weights of {place} ({', '.join(there) or 'none'}); give "
                "another one, or leave it out"
            )
        variant = None
    end = f".{variant}" if variant else ""
    single, index = place / f"{stem}{end}.safetensors", place / f"{stem}.safetensors.index{end}.json"
    first = (index, single) if diffusers else (single, index)
    if found := next((path for path in first if path.is_file() or path.is_symlink()), None):
        return shards(index) if found == index else [single]
    older = "diffusion_pytorch_model" if diffusers else "pytorch_model"
    if any(file.startswith(f"{older}{end}") and file.endswith(".bin") for file in there):
        return []
    raise SpecError(
        f"model: {place} has no weights ({single.name} belongs there; there are {', '.join(there) or 'none'}); "
        f"{AGAIN}, or give its variant"
    )


def has_variant(place: Path, variant: str) -> bool:
    """Whether a component has weights of a variant; others than the denoiser are then loaded without it."""
    parts = (part for path in place.iterdir() for part in path.name.split(".")[1:-1])
    return any(part == variant or part.startswith(f"{variant}-") for part in parts)


def shards(index: Path) -> list[Path]:
    """The files of a sharded network; SpecError where the index is damaged or one is missing."""
    names = read_record(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise SpecError(f"model: {index} does not say which file holds which weights; {AGAIN}")
    files = [index.parent / file for file in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SpecError(f"model: {index.parent} lacks {', '.join(missing)}, which {index.name} lists; {AGAIN}")
    return files


def stored_shapes(files: list[Path]) -> Shapes:
    """The shapes of all tensors of safetensors files, from their headers; a file that was cut is refused."""
    return {name: entry.shape for path in files for name, entry in header(path).items()}


class Entry(NamedTuple):
    """A tensor as the header of a safetensors file has it: `F16`, `BF16`, …, and its shape."""

    type: str
    shape: tuple[int, ...]


def header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name. No torch in here.

    Raises:
        SpecError: it is missing, a pointer of Git LFS, no such file, or not as long as its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(len(LFS))
            if begin == LFS:
                raise SpecError(f"model: {path} is a pointer of Git LFS, not the weights; run `git lfs pull`")
            length = int.from_bytes(begin[:8], "little")
            file.seek(8)
            record: Any = json.loads(file.read(length)) if 0 < length <= size - 8 else None
        entries = {name: entry for name, entry in record.items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for entry in entries.values()]
        found = {name: Entry(str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in entries.items()}
    except OSError as error:
        what = "is a link to a file that is not there" if path.is_symlink() and not path.exists() else str(error)
        raise SpecError(f"model: {path} cannot be read ({what}); {AGAIN}") from None
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise SpecError(f"model: {path} is not a safetensors file; {AGAIN}") from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise SpecError(f"model: {path} has {size:,} of {expected:,} bytes; {AGAIN}")
    return found
