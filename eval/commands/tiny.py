"""`python -m eval tiny`."""

from pathlib import Path

from obsdiff import registry


def run(family: str, out: Path) -> None:
    """Write a randomly initialised pipeline of a family, for `scale: tiny`.

    Args:
        family: a file of obsdiff/models.
        out: the diffusers folder.
    """
    registry.load("obsdiff.models", family).tiny().save_pretrained(out)
