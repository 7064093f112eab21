"""What a cell changes of its model's sampling and calibration and of PruneSpec, of all that the config asks for."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, NamedTuple

from eval.sweep.cells import MODEL
from obsdiff.canonical import canonical
from obsdiff.errors import SpecError
from obsdiff.pipelines import families, samplers, sizes
from obsdiff.sampling import Sampling
from obsdiff.source import Source
from obsdiff.spec import PruneSpec

Model = Mapping[str, Any]
"""the content of a file of config/models"""


class Overrides(NamedTuple):
    """What the texts on a cell's axes stand for; each mapping holds only what changes the cell's result."""

    options: dict[str, Any]
    """fields of PruneSpec"""
    sampling: dict[str, Any]
    """fields of Sampling, in calibration and in use"""
    calibration: dict[str, Any]
    """count, prompts and choice, and under `sampling` fields of Sampling that hold in calibration alone, or `model`"""


def relevant(options: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """The options that change what the method does, and those that it cannot do without."""
    kept = relevant_keys(json.dumps([options, rest], sort_keys=True))
    return {key: options[key] for key in kept}


@cache
def relevant_keys(text: str) -> tuple[str, ...]:
    """relevant() of what the JSON text holds: a run of the DAG asks again and again, and a spec takes its time."""
    options, rest = json.loads(text)
    whole = canonical(PruneSpec(**{**rest, **options}))

    def matters(key: str) -> bool:
        try:
            return canonical(PruneSpec(**{**rest, **{k: v for k, v in options.items() if k != key}})) != whole
        except SpecError:
            return True

    return tuple(key for key in sorted(options) if matters(key))


def sampling_of(model: Model, *overrides: Mapping[str, Any]) -> Sampling:
    """The model's sampling with overrides; SpecError where a value is not allowed or the pipeline cannot do it."""
    values = dict(model["sampling"])
    for override in overrides:
        values |= override
    made = Sampling(**values)
    source = Source(**model["source"])
    traits = families.traits(source, model["family"])
    samplers.check(traits, made)
    sizes.check(traits, source, made)
    return made


def changed(key: str, asked: Mapping[str, Any], model: Model, *under: Mapping[str, Any]) -> dict[str, Any]:
    """Of a sampling override what differs from the model's own under `under`, and is known to be allowed."""
    try:
        before = asdict(sampling_of(model, *under))
        sampling_of(model, *under, asked)
    except SpecError as error:
        raise SpecError(f"{key}: {error}") from None
    return {k: v for k, v in sorted(asked.items()) if v != before[k]}


def calibration_of(asked: Mapping[str, Any], model: Model, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Of a calibration override what differs from the model's calibration and the cell's sampling.

    `sampling: model` calibrates with the model file's sampling however the cell samples in use.
    """
    own = model["calibration"]
    found = {k: asked[k] for k in ("choice", "count", "prompts") if k in asked and asked[k] != own.get(k)}
    if asked.get("sampling") == MODEL:
        return found | ({"sampling": MODEL} if sampling else {})
    inner = changed("grid.calibration.sampling", asked.get("sampling", {}), model, sampling)
    return found | ({"sampling": inner} if inner else {})
