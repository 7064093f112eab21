"""Which heights and widths a pipeline draws, from its configuration alone: no torch, no download.

A pipeline refuses other sizes, or rounds them without a word (Flux).
"""

from obsdiff.errors import SpecError
from obsdiff.models import Traits
from obsdiff.pipelines.sources import record
from obsdiff.sampling import Sampling
from obsdiff.source import Source

USUAL_SCALE = 8
"""pixels per latent position of every published checkpoint of the supported families"""
USUAL_PATCH = 2


def multiple(traits: Traits, source: Source) -> int:
    """Pixels that height and width are multiples of: a family's `sides` on the model's configuration."""
    unit, value = traits.sides
    if unit == "pixels":
        return int(value)
    channels = record(source, "vae/config.json").get("block_out_channels")
    scale = 2 ** (len(channels) - 1) if isinstance(channels, list) and channels else USUAL_SCALE
    if isinstance(value, str):
        value = record(source, f"{traits.denoiser}/config.json").get(value) or USUAL_PATCH
    return scale * int(value)


def check(traits: Traits, source: Source, sampling: Sampling) -> None:
    """Raise SpecError where the pipeline cannot draw images of the sampling's height and width."""
    sides = multiple(traits, source)
    for key in ("height", "width"):
        value = getattr(sampling, key)
        if value is not None and value % sides:
            near = max(sides, round(value / sides) * sides)
            raise SpecError(f"{key}: {value} is not a multiple of {sides}, which this pipeline needs; give {near}")
