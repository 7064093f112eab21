"""Which heights and widths a pipeline draws, from its configuration alone: no torch, no download.

A pipeline refuses other sizes, or rounds them without a word (Flux).
"""

from pathlib import Path
from typing import Any

from obsdiff import models
from obsdiff.errors import SpecError
from obsdiff.pipelines.sources import folder_of, read_record
from obsdiff.sampling import Sampling
from obsdiff.source import Source

FACTS = Path(__file__).parent / "facts"
USUAL_SCALE = 8
"""pixels per latent position of every published checkpoint of the supported families"""
USUAL_PATCH = 2


def multiple(family: str, source: Source) -> int:
    """Pixels that height and width are multiples of: the family's `sides` on the model's configuration.

    Args:
        family: a file of obsdiff/models.
    """
    traits = models.traits(family)
    unit, value = traits.sides
    if unit == "pixels":
        return int(value)
    channels = known(source, "vae/config.json", "block_out_channels")
    scale = 2 ** (len(channels) - 1) if isinstance(channels, list) and channels else USUAL_SCALE
    if isinstance(value, str):
        value = known(source, f"{traits.denoiser}/config.json", value) or USUAL_PATCH
    return scale * int(value)


def known(source: Source, file: str, key: str) -> Any:
    """A value of a model's configuration, of its folder or of the shipped facts; None where neither has it."""
    folder = folder_of(source)
    if folder is not None and (folder / file).is_file():
        return read_record(folder / file).get(key)
    shipped = FACTS / f"{source.model.replace('/', '--')}.json"
    return read_record(shipped).get(file, {}).get(key) if shipped.is_file() else None


def check(family: str, source: Source, sampling: Sampling) -> None:
    """Raise SpecError where the pipeline cannot draw images of the sampling's height and width."""
    sides = multiple(family, source)
    for key in ("height", "width"):
        value = getattr(sampling, key)
        if value is not None and value % sides:
            near = max(sides, round(value / sides) * sides)
            raise SpecError(f"{key}: {value} is not a multiple of {sides}, which this pipeline needs; give {near}")
