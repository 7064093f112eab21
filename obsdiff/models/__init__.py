"""Model families: one file per diffusers pipeline class, the only places that know an architecture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from obsdiff import registry
from obsdiff.errors import LayerError, SpecError

if TYPE_CHECKING:
    from torch import nn

    from obsdiff.matrices import Layer
    from obsdiff.packages import Group, Unit
    from obsdiff.sampling import Sampling
    from obsdiff.sites import Site


AUTO = "auto"
"""family of a model whose class has no file of its own (_auto.py); in a model file, whichever the model's class says"""


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
        convolutions: whether units() and groups() list 1×1 convolutions, too, where they are asked to.
    """

    pipeline: str
    denoiser: str
    network: str
    schedulers: tuple[str, ...]
    sides: tuple[str, int | str]
    last: str | None = None
    convolutions: bool = False


class Family(Protocol):
    """A file of this folder."""

    def blocks(self, denoiser: "nn.Module") -> "Sequence[str]":
        """Names of the blocks that hold the prunable layers, in order of execution."""

    def units(self, denoiser: "nn.Module") -> "Sequence[Unit]":
        """The prunable linear layers in order of execution, by shared input and unit (obsdiff/packages.py).

        With Traits.convolutions there is a second argument, by which 1×1 convolutions outside the blocks are listed.
        """

    def groups(self, denoiser: "nn.Module") -> "Sequence[Group]":
        """The layers of all units by shared input, in the order in which the first layer of each is called.

        With Traits.convolutions it takes the same second argument.
        """

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


def family_of(pipe: Any, sampling: "Sampling | None" = None, sites: bool = False) -> Any:
    """The family of a pipeline's class, or of the nearest supported class that it inherits from.

    Any other text-to-image pipeline of diffusers has a family that finds out what it needs (_auto.py).

    Args:
        sampling: of a run that is to calibrate; such a pipeline is watched while it calls its denoiser once.
        sites: whether heads and neurons are looked for then.

    Raises:
        SpecError: it is neither.
    """
    classes = [cls.__name__ for cls in type(pipe).__mro__]
    if "DiffusionPipeline" in classes and is_open(classes):
        from obsdiff.models import _auto

        if (found := _auto.of(pipe, Traits)) is not None:
            if sampling is not None:
                found.watch(sampling, sites)
            return found
    return family_among(classes)


def family_of_index(index: Mapping[str, Any], scheduler: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The family of a model by its model_index.json: of its class, or of the nearest one that it inherits from.

    Any other text-to-image pipeline of diffusers has one (_auto.py) that knows no layers yet.

    Args:
        scheduler: its configuration.

    Raises:
        SpecError: it is neither.
    """
    cls = str(index.get("_class_name", "pipeline whose model_index.json names no _class_name"))
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
    classes = [c.__name__ for c in known.__mro__]
    if is_open(classes):
        from obsdiff.models import _auto

        if (found := _auto.of_index(known, index, scheduler, Traits)) is not None:
            return found
    return family_among(classes)


def is_open(classes: Sequence[str]) -> bool:
    """Whether a pipeline of these classes, its own first, has no file here and draws from text alone."""
    return not supported().keys() & set(classes) and not takes_an_image(classes[0])


def takes_an_image(cls: str) -> bool:
    """Whether a pipeline of that class starts from an image, or is steered by one, beside the text."""
    return any(word in cls for word in ("Img2Img", "Image2Image", "Inpaint", "ControlNet", "Kontext", "Edit"))


def name_of(family: Any) -> str:
    """A family's file in this folder, or AUTO."""
    return str(family.__name__).rpartition(".")[2].removeprefix("_")


def module_of(name: str) -> str:
    """The module of a family by its name."""
    return f"{__name__}.{'_' if name == AUTO else ''}{name}"


def check(name: str, key: str) -> None:
    """Raise UnknownEntry unless there is such a family; AUTO is one."""
    if name != AUTO:
        registry.check(__name__, name, key, AUTO)


def family_among(classes: Sequence[str]) -> ModuleType:
    """The family of the first of these pipeline classes that is supported; SpecError names the first otherwise."""
    for cls in classes:
        if cls in supported():
            return registry.load(__name__, supported()[cls])
    hint = "see CONTRIBUTING, 'Add a model', and docs/models.md for other pipelines of diffusers"
    if takes_an_image(classes[0]):
        hint = "prune the text-to-image pipeline, whose denoiser it can be given afterwards (docs/models.md)"
    raise SpecError(
        f"model: a {classes[0]} is not supported ({', '.join(supported())}, and classes that inherit from one of "
        f"these); {hint}"
    )


def supported() -> dict[str, str]:
    """Pipeline class → file of this folder."""
    return {traits(name).pipeline: name for name in registry.names(__name__)}


def denoiser_of(pipe: Any) -> Any:
    """The network that is pruned, a diffusers model; of a network that torch.compile() wrapped, the network itself."""
    network = getattr(pipe, family_of(pipe).TRAITS.denoiser)
    return getattr(network, "_orig_mod", network)


def units(family: Any, denoiser: "nn.Module", convolutions: bool = True) -> "Sequence[Unit]":
    """A family's units, with the 1×1 convolutions outside its blocks where it knows them and they are asked for."""
    found: Sequence[Unit] = family.units(denoiser, *([True] if convolutions and family.TRAITS.convolutions else []))
    return found


def groups(family: Any, denoiser: "nn.Module", convolutions: bool = True) -> "Sequence[Group]":
    """A family's groups, as units()."""
    found: Sequence[Group] = family.groups(denoiser, *([True] if convolutions and family.TRAITS.convolutions else []))
    return found


def require_convolutions(of: Traits) -> None:
    """Raise SpecError unless a family lists 1×1 convolutions outside the blocks, which are to be pruned."""
    if not of.convolutions:
        kinds = ", ".join(name for name in registry.names(__name__) if traits(name).convolutions)
        raise SpecError(
            f"convolutions: they are pruned of UNets ({kinds}), and the model is a {of.pipeline}, whose blocks are "
            "pruned with all linear layers and 1×1 convolutions in them; leave it out"
        )


def linear(denoiser: "nn.Module", name: str) -> "Layer":
    """The prunable layer of that name; LayerError if there is none, or it is no linear layer or 1×1 convolution."""
    from obsdiff import matrices

    try:
        layer = denoiser.get_submodule(name)
    except AttributeError:
        raise LayerError(f"{name}: this {type(denoiser).__name__} has no such layer") from None
    if not matrices.is_layer(layer):
        kind = f"{type(layer).__module__}.{type(layer).__name__}"
        raise LayerError(f"{name}: it is a {kind}, not a torch.nn.Linear or a 1×1 torch.nn.Conv2d")
    return layer


def shape(denoiser: "nn.Module", name: str) -> tuple[int, int]:
    """Rows and columns of a prunable layer; LayerError as linear()."""
    from obsdiff import matrices

    return matrices.shape(linear(denoiser, name))
