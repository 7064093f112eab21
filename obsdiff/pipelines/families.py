"""Which family a model is of, and the family's traits, from its configurations alone. No torch in here.

A class without a file in obsdiff/models is looked up in diffusers, which takes seconds to import; what was found is
kept in the cache, since every run of snakemake asks for it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from obsdiff import models, registry, schedulers
from obsdiff.models import AUTO, Traits
from obsdiff.pipelines.sources import INDEX, record
from obsdiff.source import Source
from obsdiff.storage.cache import keep, kept
from obsdiff.storage.files import code_identity

SCHEDULER = "scheduler/scheduler_config.json"
UNKNOWN = Traits(
    pipeline="pipeline of that class",
    denoiser="transformer",
    network="",
    schedulers=schedulers.NAMES,
    sides=("pixels", 1),
)
"""of a model that is not on this machine and whose file does not name its family: nothing can be checked yet"""


class Told(NamedTuple):
    """What is known of a family without a pipeline of it; the name is AUTO where its class has no file."""

    name: str
    traits: Traits


def of_index(source: Source, index: Mapping[str, Any]) -> Any:
    """The family of a model with this model_index.json; SpecError where its class is not supported."""
    return models.family_of_index(index, record(source, SCHEDULER))


def told(source: Source) -> Told | None:
    """Of the family of a model that is on this machine, or that facts are shipped of; None of others.

    Raises:
        SpecError: its class is not supported.
    """
    index = record(source, INDEX)
    if not index:
        return None
    if name := models.supported().get(str(index.get("_class_name"))):
        return Told(name, models.traits(name))
    asked = json.dumps([index, record(source, SCHEDULER), code()]).encode()
    if (known := kept("families", asked)) is not None:
        known["traits"] |= {key: tuple(known["traits"][key]) for key in ("schedulers", "sides")}
        return Told(known["name"], Traits(**known["traits"]))
    family = of_index(source, index)
    found = Told(models.name_of(family), family.TRAITS)
    keep("families", asked, {"name": found.name, "traits": asdict(found.traits)})
    return found


@cache
def code() -> str:
    """SHA-256 of what tells a class its family: the sources, and the diffusers that has the class."""
    return code_identity([*registry.folder("obsdiff.models").glob("*.py"), Path(schedulers.__file__)], ["diffusers"])


def traits(source: Source, name: str) -> Traits:
    """Of the family of that name, which for AUTO is the model's."""
    if name != AUTO:
        return models.traits(name)
    found = told(source)
    return UNKNOWN if found is None else found.traits


def named(source: Source, name: str) -> str:
    """The family that AUTO in a model file stands for: that of the model's class if it has a file of its own."""
    found = told(source) if name == AUTO else None
    return name if found is None else found.name
