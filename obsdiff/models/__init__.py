"""Model families: one file a diffusers pipeline class, the only places that know an architecture.

PIPELINE                    the diffusers class's name
DENOISER                    the pipeline's component that is pruned
SCHEDULERS                  the names of obsdiff/schedulers.py that the pipeline can use
SIDES                       what height and width are multiples of: ("pixels", 8), or positions of the VAE's latents, as
                            a number or as a key of the denoiser's configuration: ("latents", "patch_size")
units(denoiser)             prunable layers in order of execution: units of groups of layer names (see packages)
sites(denoiser)             heads and neurons that can be removed, in order of execution (see surgery)
example(denoiser, height, width, sampling)
                            arguments of one call for one prompt on latents of that size, to count work without weights
encode(pipe, prompts, sampling)
                            prompts → keyword arguments of the pipeline's call, tensors with one row a prompt
tiny()                      a randomly initialised pipeline of the same classes, offline, in seconds
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from obsdiff import registry
from obsdiff.errors import SpecError

if TYPE_CHECKING:
    from torch import nn


def family_of(pipe: Any) -> ModuleType:
    """The family whose pipeline class this is."""
    return family_named(type(pipe).__name__)


def family_named(cls: str) -> ModuleType:
    """The family of a pipeline class's name; SpecError where there is none."""
    supported = {registry.constants(__name__, name)["PIPELINE"]: name for name in registry.names(__name__)}
    if cls not in supported:
        raise SpecError(f"model: a {cls} is not supported ({', '.join(supported)}); see CONTRIBUTING, 'Add a model'")
    return registry.load(__name__, supported[cls])


def denoiser_of(pipe: Any) -> Any:
    """The network that is pruned, a diffusers model."""
    return getattr(pipe, family_of(pipe).DENOISER)


def linear(denoiser: "nn.Module", name: str) -> "nn.Linear":
    """The prunable layer of that name."""
    from torch import nn

    layer = denoiser.get_submodule(name)
    assert isinstance(layer, nn.Linear), f"{name} is a {type(layer).__name__}"
    return layer
