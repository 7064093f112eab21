"""Where a pipeline's components are while it is pruned or profiled: text encoders for the prompts, then the denoiser.

diffusers' hooks move whole components for every call; pruning needs the denoiser's weights to stay on the device from
the first sampling run to the last layer, and profiling calls its layers and blocks themselves. So hooks are taken off
for that time, and are as before afterwards.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from obsdiff import models
from obsdiff.devices import require_whole
from obsdiff.pipelines import guard

Encoded = TypeVar("Encoded")


class Stage:
    """The components of a pipeline whose hooks are off.

    Attributes:
        device: where it computes.
    """

    def __init__(self, pipe: Any, device: torch.device) -> None:
        self.device = device
        self.components: dict[str, Any] = {name: c for name, c in pipe.components.items() if isinstance(c, nn.Module)}
        self.denoiser = models.family_of(pipe).TRAITS.denoiser

    def encoding(self, alone: bool) -> None:
        """Text encoders on the device.

        Args:
            alone: without the denoiser.
        """
        for name, component in self.components.items():
            encodes = "encoder" in name or (name == self.denoiser and not alone)
            component.to(self.device if encodes else "cpu")

    def sampling(self) -> None:
        """The denoiser on the device and nothing else."""
        for name in sorted(self.components, key=lambda name: name == self.denoiser):
            self.components[name].to(self.device if name == self.denoiser else "cpu")


@contextmanager
def staged(pipe: Any) -> Iterator[Stage]:
    """A stage for the block; afterwards every component is where it was, with model offload if it was on.

    Raises:
        SpecError: sequential offload is on, which leaves no weights to prune or to profile.
    """
    mode, device = guard.offload_of(pipe), pipe._execution_device
    require_whole(mode)
    if mode == "model":
        pipe.remove_all_hooks()
    stage = Stage(pipe, device)
    places = {name: component.device for name, component in stage.components.items()}
    try:
        yield stage
    finally:
        if mode == "model":
            pipe.enable_model_cpu_offload(device=device)
        else:
            for name, component in stage.components.items():
                component.to(places[name])


@contextmanager
def denoising(pipe: Any, encode: Callable[[], Encoded]) -> Iterator[Encoded]:
    """The denoiser alone on the device for the block, for calls of it and for sampling without decoding.

    Args:
        encode: called before, with the text encoders on the device; what it gives is the block's.

    Raises:
        SpecError: as staged().
    """
    with guard.eager(), staged(pipe) as stage:
        stage.encoding(alone=models.denoiser_of(pipe).device != stage.device)
        found = encode()
        stage.sampling()
        yield found
