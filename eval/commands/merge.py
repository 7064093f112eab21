"""`python -m eval merge`."""

from pathlib import Path

from eval.images.shards import merge as join
from obsdiff.captions.prompts import read_prompts


def run(images: Path, prompts_file: Path, shards: int) -> None:
    """Make the records of a cell's shards one manifest.

    Args:
        images: the images' folder.
        shards: how many there are.
    """
    join(images, read_prompts(prompts_file), shards)
