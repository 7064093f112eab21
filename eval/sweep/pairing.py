"""Real images of the prompts themselves, told by the files' names. No torch here."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from obsdiff.captions.prompts import Prompt
from obsdiff.errors import SpecError

KEY = "evaluation.fid_references"
Reference = Literal["cropped", "resized", "paired"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)
"""what the key may list: metrics that read them are measured beside FID"""


def pairs(files: Iterable[Path], prompts: Sequence[Prompt]) -> list[list[Path]]:
    """The files of every prompt, in the order of the prompts.

    A file belongs to a prompt whose id is its name without the suffix, or ends it after `_` and zeros, as `42` does
    `COCO_val2014_000000000042.jpg`.

    Raises:
        SpecError: a prompt has none.
    """
    named: dict[str, list[Path]] = {}
    for path in files:
        for name in {path.stem, short(path.stem)}:
            named.setdefault(name, []).append(path)
    found = [named.get(prompt.id) or named.get(prompt.file, []) for prompt in prompts]
    without = [prompt.id for prompt, own in zip(prompts, found, strict=True) if not own]
    if without:
        raise SpecError(
            f"{KEY}: 'paired' needs a real image of every prompt, and {len(without)} of {len(prompts)} have none (the "
            f"first is {without[0]!r}); name the images by the prompts' ids, or leave 'paired' out"
        )
    return found


def paired(files: Sequence[Path], prompts: Sequence[Prompt]) -> list[int]:
    """The place of every prompt's real image among files, in the order of the prompts.

    Raises:
        SpecError: as pairs(), or a prompt has several.
    """
    places = {path: place for place, path in enumerate(files)}
    found = pairs(files, prompts)
    for prompt, own in zip(prompts, found, strict=True):
        if len(own) > 1:
            both = " and ".join(repr(str(path)) for path in own[:2])
            raise SpecError(f"{KEY}: {both} both belong to the prompt {prompt.id!r}; keep one of them")
    return [places[path] for (path,) in found]


def short(stem: str) -> str:
    """`COCO_val2014_000000000042` → `42`; another name as it is."""
    _, underscore, digits = stem.rpartition("_")
    return str(int(digits)) if underscore and digits.isascii() and digits.isdigit() else stem
