"""Prompt files: CSV with columns `caption` and optionally `id`, or plain text with one prompt a line."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from obsdiff.errors import SpecError


@dataclass(frozen=True)
class Prompt:
    """A caption and the identity that its noise is drawn from."""

    id: str
    caption: str


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read a prompt file; where it has no ids, an id is the caption's SHA-256, 16 digits.

    Raises:
        SpecError: no such file, no prompts, no column `caption`, or an id twice.
    """
    path = Path(path)
    if not path.is_file():
        raise SpecError(f"prompts: {str(path)!r} is not a file; give CSV with a column `caption`, or a prompt a line")
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and "caption" not in rows[0]:
            raise SpecError(f"prompts: {str(path)!r} has no column `caption` ({', '.join(rows[0])})")
        found = [Prompt(row.get("id") or identity(row["caption"]), row["caption"]) for row in rows]
    else:
        lines = (line.strip() for line in path.read_text().splitlines())
        found = [Prompt(identity(line), line) for line in lines if line]
    if not found:
        raise SpecError(f"prompts: {str(path)!r} holds none")
    ids = [prompt.id for prompt in found]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise SpecError(f"prompts: {str(path)!r} has the id {min(twice)!r} twice")
    return found


def identity(caption: str) -> str:
    return sha256(caption.encode()).hexdigest()[:16]


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> None:
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "caption"])
        writer.writerows([p.id, p.caption] for p in prompts)
