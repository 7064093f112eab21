"""A model's denoiser without weights, and the work of a call of it: all that a plan starts from."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from obsdiff import models
from obsdiff.errors import SpecError
from obsdiff.pipelines import components, families, samplers
from obsdiff.pipelines.hollow import Hollow, hollow_pipeline
from obsdiff.pipelines.loading import configuration, denoiser_class
from obsdiff.pipelines.sources import INDEX
from obsdiff.planning.counting import Work, count_flops, work_of_pipeline
from obsdiff.sampling import explained
from obsdiff.source import Source
from obsdiff.spec import PruneSpec


def meta_denoiser(source: Source) -> tuple[Any, nn.Module]:
    """The family, and a pipeline's denoiser without weights.

    Raises:
        SpecError: no configuration is on this machine, or the class is not supported.
    """
    index = configuration(source, INDEX)
    family = families.of_index(source, index)
    cls = denoiser_class(family, index)
    config = configuration(source, f"{family.TRAITS.denoiser}/config.json")
    with components.explained(family.TRAITS.denoiser, Path(source.model)), torch.device("meta"):
        return family, cls.from_config(config)


def weightless(source: Source, spec: PruneSpec) -> tuple[Any, nn.Module, Work]:
    """The family, a pipeline's denoiser without weights, and the work of a call of it.

    Raises:
        SpecError: a configuration is not on this machine, the class is not supported, or the pipeline refuses the call.
    """
    if models.name_of(families.of_index(source, configuration(source, INDEX))) == models.AUTO:
        return observed(source, spec)
    family, denoiser = meta_denoiser(source)
    return family, denoiser, count_flops(family, denoiser, spec, configuration(source, "vae/config.json"))


def observed(source: Source, spec: PruneSpec) -> tuple[Any, nn.Module, Work]:
    """The same of a pipeline without a family's file, which is called without weights.

    Raises:
        SpecError: the spec removes heads or neurons, which only a call with weights shows.
    """
    if spec.resolved.structured:
        raise SpecError(
            f"pattern: {spec.pattern!r}: the heads and neurons of a model without a file in obsdiff/models are found "
            "when it is pruned, by a call with its weights, and a plan has none; plan a mask, such as 2:4"
        )
    pipe = hollow_pipeline(source)
    samplers.use(pipe, spec.sampling)
    with Hollow():
        family = models.family_of(pipe, spec.sampling)
    denoiser = models.denoiser_of(pipe)
    with explained(pipe, spec.sampling, "the prompt 'a'"):
        return family, denoiser, work_of_pipeline(pipe, denoiser, spec.sampling)
