"""Prompt files, told by their suffix, and the choice of some of their prompts.

.csv    a column `caption` and optionally `id`
.tsv    Conceptual Captions (GCC3M): caption, tab, address of the picture; no header; a caption that comes again is
        taken once
.json   MS-COCO captions: of an image's captions the one with the lowest annotation id; the image's id is the prompt's
else    text, one prompt a line

All are UTF-8, with or without a byte order mark. Captions are stripped.
"""

import csv
import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from obsdiff.errors import SpecError

CHOICES = ("first", "hash")
LARGE = (".tsv", ".json")
"""suffixes of published caption sets, which are large: not counted before a job needs them, and chosen from by hash"""
GET = {
    ".tsv": "get Train_GCC-training.tsv from https://ai.google.com/research/ConceptualCaptions/download and put it "
    "there",
    ".json": "unpack http://images.cocodataset.org/annotations/annotations_trainval2014.zip and put its file of that "
    "name there",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A caption and the identity that its noise is drawn from."""

    id: str
    caption: str


def read_prompts(path: str | Path) -> list[Prompt]:
    """All prompts of a file, in its order; where it has no ids, an id is the caption's SHA-256, 16 digits.

    Raises:
        SpecError: no such file, no prompts, no captions where they belong, or an id twice.
    """
    found = list(prompts_of(Path(path)))
    if not found:
        raise SpecError(f"prompts: {str(path)!r} holds none")
    return found


def choose_prompts(
    path: str | Path, count: int, choice: str | None = None, disjoint_from: str | Path | None = None
) -> list[Prompt]:
    """`count` prompts of a file: the first ones, or those whose ids have the lowest SHA-256.

    The choice by hash does not depend on the file's order, and a smaller one is the head of a larger one.

    Args:
        choice: first or hash; where left out, hash for .tsv and .json, first for other files.
        disjoint_from: a prompt file whose captions are passed over.

    Raises:
        SpecError: as read_prompts, or there are fewer.
    """
    path = Path(path)
    choice = choice or ("hash" if path.suffix in LARGE else "first")
    if choice not in CHOICES:
        raise SpecError(f"choice: {choice!r} is not one of {', '.join(CHOICES)}")
    taken = {prompt.caption for prompt in prompts_of(Path(disjoint_from))} if disjoint_from else set()
    free = (prompt for prompt in prompts_of(path) if prompt.caption not in taken)
    if choice == "hash":
        found = heapq.nsmallest(count, free, key=lambda p: sha256(p.id.encode()).digest())
    else:
        found = [prompt for i, prompt in enumerate(free) if i < count]
    if not 0 < count <= len(found):
        total = sum(prompt.caption not in taken for prompt in prompts_of(path))
        which = f"{path} that {disjoint_from} has not" if disjoint_from else path
        raise SpecError(f"count: {count} is not in [1, {total}], the prompts of {which}")
    return found


def require_file(path: str | Path) -> None:
    """Raise SpecError, with where such a file comes from, unless it is there."""
    path = Path(path)
    if not path.is_file():
        what = GET.get(path.suffix, "give CSV with a column `caption`, or a prompt a line")
        raise SpecError(f"prompts: {str(path)!r} is not a file; {what}")


def prompts_of(path: Path) -> Iterator[Prompt]:
    """The prompts of a file one after the other, every id once."""
    require_file(path)
    readers = {".csv": from_csv, ".tsv": from_tsv, ".json": from_coco}
    seen: set[str] = set()
    for prompt in readers.get(path.suffix, from_text)(path):
        if prompt.id not in seen:
            seen.add(prompt.id)
            yield prompt
        elif path.suffix != ".tsv":
            raise SpecError(f"prompts: {str(path)!r} has the id {prompt.id!r} twice")


def from_csv(path: Path) -> Iterator[Prompt]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        for row in rows:
            if "caption" not in row:
                raise SpecError(f"prompts: {str(path)!r} has no column `caption` ({', '.join(map(str, row))})")
            caption = (row["caption"] or "").strip()
            yield Prompt(row.get("id") or identity(caption), caption)


def from_tsv(path: Path) -> Iterator[Prompt]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if caption := line.partition("\t")[0].strip():
                yield Prompt(identity(caption), caption)


def from_text(path: Path) -> Iterator[Prompt]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if caption := line.strip():
                yield Prompt(identity(caption), caption)


def from_coco(path: Path) -> Iterator[Prompt]:
    """In the order of image ids."""
    lowest: dict[int, tuple[int, str]] = {}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8-sig"))["annotations"]:
            image, found = int(entry["image_id"]), (int(entry["id"]), str(entry["caption"]).strip())
            lowest[image] = min(found, lowest.get(image, found))
    except (ValueError, KeyError, TypeError) as error:
        what = "MS-COCO captions have {'annotations': [{'image_id', 'id', 'caption'}, …]}"
        raise SpecError(f"prompts: {str(path)!r} cannot be read; {what}") from error
    for image, (_, caption) in sorted(lowest.items()):
        yield Prompt(str(image), caption)


def identity(caption: str) -> str:
    return sha256(caption.encode()).hexdigest()[:16]


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    """SHA-256 of the ids and captions, in order."""
    return sha256("".join(f"{p.id}\t{p.caption}\n" for p in prompts).encode()).hexdigest()


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> None:
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "caption"])
        writer.writerows([p.id, p.caption] for p in prompts)
