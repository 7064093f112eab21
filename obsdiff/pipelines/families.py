"""Which family a model is of, and the family's traits, from its configurations alone. No torch in here."""

from collections.abc import Mapping
from typing import Any

from obsdiff import models, schedulers
from obsdiff.models import AUTO, Traits
from obsdiff.pipelines.sources import INDEX, record
from obsdiff.source import Source

SCHEDULER = "scheduler/scheduler_config.json"
UNKNOWN = Traits(
    pipeline="pipeline of that class",
    denoiser="transformer",
    network="",
    schedulers=schedulers.NAMES,
    sides=("pixels", 1),
)
"""of a model that is not on this machine and whose file does not name its family: nothing can be checked yet"""


def of_index(source: Source, index: Mapping[str, Any]) -> Any:
    """The family of a model with this model_index.json; SpecError where its class is not supported."""
    return models.family_of_index(index, record(source, SCHEDULER))


def family(source: Source) -> Any:
    """The family of a model that is on this machine, or that facts are shipped of; None of others.

    Raises:
        SpecError: its class is not supported.
    """
    index = record(source, INDEX)
    return of_index(source, index) if index else None


def traits(source: Source, name: str) -> Traits:
    """Of the family of that name, which for AUTO is the model's."""
    if name != AUTO:
        return models.traits(name)
    found = family(source)
    return UNKNOWN if found is None else found.TRAITS


def named(source: Source, name: str) -> str:
    """The family that AUTO in a model file stands for: that of the model's class if it has a file of its own."""
    found = family(source) if name == AUTO else None
    return name if found is None else models.name_of(found)
