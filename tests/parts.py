"""A tiny pipeline taken apart: its denoiser, the names of its layers, and another module in a layer's place."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from obsdiff import models, packages


def denoiser_and_names(family: Any) -> tuple[Any, nn.Module, list[str]]:
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    return pipe, denoiser, packages.layers(family.units(denoiser))


def put(denoiser: nn.Module, name: str, make: Callable[[nn.Module], nn.Module]) -> None:
    """Replace a layer by what `make` makes of it."""
    parent, _, last = name.rpartition(".")
    setattr(denoiser.get_submodule(parent), last, make(denoiser.get_submodule(name)))


def weights_of(pipe: Any) -> dict[str, Tensor]:
    """Copies of the denoiser's parameters and buffers."""
    return {key: value.clone() for key, value in models.denoiser_of(pipe).state_dict().items()}
