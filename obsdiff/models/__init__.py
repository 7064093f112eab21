"""Model families: one file a diffusers pipeline class, the only places that know an architecture.

PIPELINE                    the diffusers class's name
DENOISER                    the pipeline's component that is pruned
NETWORK                     the diffusers class's name of that component
SCHEDULERS                  the names of obsdiff/schedulers.py that the pipeline can use
SIDES                       what height and width are multiples of: ("pixels", 8), or positions of the VAE's latents, as
                            a number or as a key of the denoiser's configuration: ("latents", "patch_size")
units(denoiser)             prunable layers in order of execution: units of groups of layer names (see packages)
groups(denoiser)            the groups of all units in the order in which the first of their layers is called
sites(denoiser)             heads and neurons that can be removed, in order of execution (see surgery)
example(denoiser, height, width, sampling)
                            arguments of one call for one prompt on latents of that size, to count work without weights
encode(pipe, prompts, sampling)
                            prompts → keyword arguments of the pipeline's call, tensors with one row a prompt
tiny()                      a randomly initialised pipeline of the same classes, offline, in seconds
"""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from obsdiff import registry
from obsdiff.errors import LayerError, SpecError

if TYPE_CHECKING:
    from torch import nn


def family_of(pipe: Any) -> ModuleType:
    """The family of a pipeline's class, or of the nearest supported class that it inherits from."""
    return family_among([cls.__name__ for cls in type(pipe).__mro__])


def family_named(cls: str) -> ModuleType:
    """The family of the class that a model_index.json names: a supported one, or one of diffusers based on it.

    Raises:
        SpecError: there is none.
    """
    if cls in supported():
        return registry.load(__name__, supported()[cls])
    import diffusers

    known = getattr(diffusers, cls, None)
    if not isinstance(known, type):
        raise SpecError(
            f"model: a {cls} is not supported ({', '.join(supported())}), and diffusers has no class of that name; if "
            "it is your own and inherits from one of these, write that one as _class_name into model_index.json, or "
            "give the pipeline itself to obsdiff.prune()"
        )
    return family_among([c.__name__ for c in known.__mro__])


def family_among(classes: Sequence[str]) -> ModuleType:
    """The family of the first of these pipeline classes that is supported; SpecError names the first otherwise."""
    for cls in classes:
        if cls in supported():
            return registry.load(__name__, supported()[cls])
    raise SpecError(
        f"model: a {classes[0]} is not supported ({', '.join(supported())}, and classes that inherit from one of "
        "these); see CONTRIBUTING, 'Add a model'"
    )


def supported() -> dict[str, str]:
    """Pipeline class → file of this folder."""
    return {registry.constants(__name__, name)["PIPELINE"]: name for name in registry.names(__name__)}


def denoiser_of(pipe: Any) -> Any:
    """The network that is pruned, a diffusers model; of a network that torch.compile() wrapped, the network itself."""
    network = getattr(pipe, family_of(pipe).DENOISER)
    return getattr(network, "_orig_mod", network)


def linear(denoiser: "nn.Module", name: str) -> "nn.Linear":
    """The prunable layer of that name; LayerError if there is none, or it is not a linear layer."""
    from torch import nn

    try:
        layer = denoiser.get_submodule(name)
    except AttributeError:
        raise LayerError(f"{name}: this {type(denoiser).__name__} has no such layer") from None
    if not isinstance(layer, nn.Linear):
        raise LayerError(f"{name}: it is a {type(layer).__module__}.{type(layer).__name__}, not a torch.nn.Linear")
    return layer
