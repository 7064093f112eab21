"""Model families: one file per diffusers pipeline class, the only places that know an architecture."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from obsdiff import registry
from obsdiff.errors import LayerError, SpecError

if TYPE_CHECKING:
    from torch import nn

    from obsdiff.packages import Group, Unit
    from obsdiff.sampling import Sampling
    from obsdiff.surgery import Site


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the library and the suite must know of a family without importing it.

    Attributes:
        pipeline: name of the diffusers class.
        denoiser: the pipeline's component that is pruned.
        network: name of that component's diffusers class.
        schedulers: the schedulers that the pipeline can use, by their names in obsdiff/schedulers.py.
        sides: what height and width must be multiples of: ("pixels", 8), or positions of the VAE's latents as a number
            or as a key of the denoiser's configuration, ("latents", "patch_size").
        last: name of the linear layer that makes the denoiser's output token by token; None if there is none, as in a
            UNet, whose last layer is a convolution.
    """

    pipeline: str
    denoiser: str
    network: str
    schedulers: tuple[str, ...]
    sides: tuple[str, int | str]
    last: str | None = None


class Family(Protocol):
    """A file of this folder."""

    def blocks(self, denoiser: "nn.Module") -> "Sequence[str]":
        """Names of the blocks that hold the prunable layers, in order of execution."""

    def units(self, denoiser: "nn.Module") -> "Sequence[Unit]":
        """The prunable linear layers in order of execution, by shared input and unit (obsdiff/packages.py)."""

    def groups(self, denoiser: "nn.Module") -> "Sequence[Group]":
        """The layers of all units by shared input, in the order in which the first layer of each is called."""

    def sites(self, denoiser: "nn.Module") -> "Sequence[Site]":
        """Heads and neurons that can be removed, in order of execution (obsdiff/surgery.py)."""

    def example(self, denoiser: Any, height: int, width: int, sampling: "Sampling") -> dict[str, Any]:
        """Arguments of one call for one prompt on latents of that size, to count work without weights."""

    def encode(self, pipe: Any, prompts: Sequence[str], sampling: "Sampling") -> dict[str, Any]:
        """Keyword arguments of the pipeline's call: tensors with one row per prompt."""

    def tiny(self) -> Any:
        """A randomly initialised pipeline of the same classes, made offline in seconds."""


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)


def family_of(pipe: Any, sampling: "Sampling | None" = None) -> Any:
    """The family of a pipeline's class, or of the nearest supported class that it inherits from.

    Any other text-to-image pipeline of diffusers has a family that knows masks alone (_auto.py).

    Args:
        sampling: of a run that is to calibrate; such a pipeline is watched while it calls its denoiser once.

    Raises:
        SpecError: it is neither.
    """
    classes = [cls.__name__ for cls in type(pipe).__mro__]
    if not supported().keys() & set(classes) and "DiffusionPipeline" in classes:
        from obsdiff.models import _auto

        if (found := _auto.of(pipe, Traits)) is not None:
            if sampling is not None:
                found.watch(sampling)
            return found
    return family_among(classes)


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
        "these); see CONTRIBUTING, 'Add a model', and docs/models.md for other pipelines of diffusers"
    )


def supported() -> dict[str, str]:
    """Pipeline class → file of this folder."""
    return {traits(name).pipeline: name for name in registry.names(__name__)}


def denoiser_of(pipe: Any) -> Any:
    """The network that is pruned, a diffusers model; of a network that torch.compile() wrapped, the network itself."""
    network = getattr(pipe, family_of(pipe).TRAITS.denoiser)
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
