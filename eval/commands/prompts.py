"""`python -m eval prompts`."""

from pathlib import Path
from typing import Literal

from obsdiff.captions.prompts import choose_prompts, write_prompts


def run(
    source: Path,
    count: int,
    out: Path,
    choice: Literal["first", "hash"] | None = None,
    disjoint_from: Path | None = None,
) -> None:
    """Choose some prompts of a file.

    Args:
        source: CSV or TSV with a column `caption` (and `id`), text, JSON, JSON lines, Conceptual Captions TSV, or
            MS-COCO captions JSON.
        count: how many.
        out: CSV with id and caption.
        choice: the first ones, or those of the lowest SHA-256 of their ids; by default hash for TSV and JSON.
        disjoint_from: a prompt file whose captions are passed over.
    """
    write_prompts(out, choose_prompts(source, count, choice, disjoint_from))
