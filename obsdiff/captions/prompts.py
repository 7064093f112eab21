"""Prompts: captions with identities, read from files (obsdiff/captions/formats.py), and the choice of some of them.

Captions are stripped. A row that holds no usable caption is passed over, and standard error says how many and why.
"""

import csv
import heapq
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from obsdiff.captions.formats import Row, rows_of
from obsdiff.captions.textfiles import refuse
from obsdiff.errors import SpecError
from obsdiff.storage.files import write_text

CHOICES = ("first", "hash")
LARGE = (".tsv", ".json")
"""suffixes of published caption sets, which are large: not counted before a job needs them, and chosen from by hash"""
GET = {
    ".tsv": "get Train_GCC-training.tsv from https://ai.google.com/research/ConceptualCaptions/download and put it "
    "there",
    ".json": "unpack http://images.cocodataset.org/annotations/annotations_trainval2014.zip and put its file of that "
    "name there",
}
LONGEST = 10_000
"""characters; what is longer is not a caption, and the file not what it should be"""
NOT_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""what neither XML nor UTF-8 can hold: control characters, halves of surrogate pairs, what is no character"""
PLAIN_ID = re.compile(r"(?!sha256-)[a-z0-9_-][a-z0-9._-]{0,79}(?<!\.)")
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""names that Windows keeps to itself, whatever their suffix"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A caption and the identity that its noise is drawn from."""

    id: str
    caption: str

    @property
    def file(self) -> str:
        """Name of the prompt's files, without a suffix."""
        return file_name(self.id)


def file_name(identity: str) -> str:
    """A name for the files of a prompt that is safe in every folder and on every file system.

    A plain id (a-z, 0-9, `._-`, up to 80 of them, no dot at either end) is its own name. Of any other id, and of one
    with capitals, which some file systems do not tell from small letters, it is `sha256-` and 32 digits of its hash.
    """
    if PLAIN_ID.fullmatch(identity) and not DEVICES.fullmatch(identity):
        return identity
    return f"sha256-{sha256(identity.encode()).hexdigest()[:32]}"


def read_prompts(path: str | Path) -> list[Prompt]:
    """All prompts of a file, in its order; where it has no ids, an id is the caption's SHA-256, 16 digits.

    Raises:
        SpecError: no such file, no prompts, a format or an encoding that is not read, a malformed row, or an id twice.
    """
    passed: Counter[str] = Counter()
    found = list(prompts_of(Path(path), passed))
    say_passed(path, passed)
    if not found:
        raise SpecError(f"prompts: {str(path)!r} holds none")
    return found


def choose_prompts(
    path: str | Path, count: int, choice: str | None = None, disjoint_from: str | Path | None = None
) -> list[Prompt]:
    """`count` prompts of a file: the first ones, or those whose ids have the lowest SHA-256.

    The choice by hash does not depend on the file's order, and a smaller one is the head of a larger one.

    Args:
        choice: first or hash; by default hash for .tsv and .json, first for other files.
        disjoint_from: a prompt file whose captions are passed over.

    Raises:
        SpecError: as read_prompts, or there are fewer.
    """
    path = Path(path)
    choice = choice or ("hash" if is_large(path) else "first")
    if choice not in CHOICES:
        raise SpecError(f"choice: {choice!r} is not one of {', '.join(CHOICES)}")
    passed: Counter[str] = Counter()
    taken = {prompt.caption for prompt in prompts_of(Path(disjoint_from))} if disjoint_from else set()
    total = 0

    def counted() -> Iterator[Prompt]:
        nonlocal total
        for prompt in prompts_of(path, passed):
            if prompt.caption in taken:
                passed[f"in {disjoint_from} too"] += 1
                continue
            total += 1
            yield prompt

    if choice == "hash":
        found = heapq.nsmallest(max(count, 1), counted(), key=lambda p: sha256(p.id.encode()).digest())
    else:
        found = [prompt for i, prompt in enumerate(counted()) if i < count]
    say_passed(path, passed)
    if not 0 < count <= len(found):
        which = f"{path} that {disjoint_from} has not" if disjoint_from else path
        raise SpecError(f"count: {count} is not in [1, {total}], the prompts of {which}")
    return found


def is_large(path: str | Path) -> bool:
    """Whether a file's suffix is that of published caption sets."""
    return Path(path).suffix.lower() in LARGE


def require_file(path: str | Path) -> None:
    """Raise SpecError, with where such a file comes from, unless it is there."""
    path = Path(path)
    if not path.is_file():
        what = GET.get(path.suffix.lower(), "give CSV with a column `caption`, or one prompt per line")
        raise SpecError(f"prompts: {str(path)!r} is not a file; {what}")


def prompts_of(path: Path, passed: Counter[str] | None = None) -> Iterator[Prompt]:
    """The prompts of a file one after the other, every id once.

    Args:
        passed: counts what is passed over, by its reason.
    """
    require_file(path)
    passed = Counter() if passed is None else passed
    seen: set[str] = set()
    try:
        for row in rows_of(path):
            reason = row if isinstance(row, str) else unusable(path, row)
            if isinstance(row, str) or reason is not None:
                passed[str(reason)] += 1
                continue
            caption = row.caption.strip()
            own = None if row.id in (None, "") else identity_in(path, row)
            if own is not None and own in seen:
                refuse(path, f"has the id {own!r:.80} twice, in {row.where} again")
            found = Prompt(own or identity(caption), caption)
            if found.id in seen:
                passed["repeated"] += 1
                continue
            seen.add(found.id)
            yield found
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")


def unusable(path: Path, row: Row) -> str | None:
    """Why a row holds no caption that can be drawn; SpecError where the file is not what it should be."""
    if not isinstance(row.caption, str):
        refuse(path, f"has {row.caption!r:.40} for a caption in {row.where}; give text")
    caption = row.caption.strip()
    if len(caption) > LONGEST:
        refuse(path, f"has a caption of {len(caption)} characters in {row.where}; at most {LONGEST} are allowed")
    if "\0" in caption:
        refuse(path, f"has a NUL character in {row.where}; it is not text")
    if NOT_TEXT.search(caption):
        return "with control characters"
    return None if caption else "empty"


def identity_in(path: Path, row: Row) -> str:
    if isinstance(row.id, bool) or not isinstance(row.id, str | int) or NOT_TEXT.search(str(row.id)):
        refuse(path, f"has {row.id!r:.40} for an id in {row.where}; give text or an integer")
    return str(row.id)


def say_passed(path: str | Path, passed: Counter[str]) -> None:
    """Say on standard error what was passed over in a file."""
    if passed:
        print(f"prompts: {path}: passed over {counts_text(passed)}", file=sys.stderr, flush=True)


def counts_text(passed: Any) -> str:
    """`3: 2 empty, 1 repeated`, of counts by reason."""
    return f"{sum(passed.values())}: {', '.join(f'{n} {why}' for why, n in sorted(passed.items()))}"


def identity(caption: str) -> str:
    return sha256(caption.encode()).hexdigest()[:16]


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    """SHA-256 of the ids and captions, in order."""
    return sha256("".join(f"{p.id}\t{p.caption}\n" for p in prompts).encode()).hexdigest()


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> None:
    """Write CSV with id and caption, a whole file or nothing."""
    with io.StringIO(newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "caption"])
        writer.writerows([p.id, p.caption] for p in prompts)
        write_text(Path(path), file.getvalue())
