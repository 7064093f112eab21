"""A family for any text-to-image pipeline of diffusers that has no file of its own, found by watching one call.

For a pruning run the pipeline samples with the prompt "a" until its denoiser has been called once. Layers that read the
same tensor share a statistic, in the order in which they are called. For heads and neurons each block is looked into
while it is called (_structure.py). A pipeline that was not watched has the same layers by their names alone, each a
group of its own, and no heads or neurons.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from obsdiff import matrices, observing, sampling, schedulers
from obsdiff.models import _structure
from obsdiff.models._blocks import block_of
from obsdiff.models._structure import Unknown
from obsdiff.models._tracing import Call
from obsdiff.packages import Group, Unit
from obsdiff.sampling import Sampling
from obsdiff.sites import Site

DENOISERS = ("transformer", "unet")
"""components that a pipeline may call its denoiser, the first that is there"""
SCHEDULER = "scheduler"
UNCALLED = "not called as a layer"
GUIDED = 3
"""rows that a call for one prompt has at most: with it go an empty one and, in some pipelines, an image alone"""


class AutoFamily:
    """What models.Family asks for, of one pipeline.

    Attributes:
        TRAITS: of the pipeline's classes.
        left_out: linear layers and 1×1 convolutions that stay dense → why.
        repeated: layers that a call reads several times, with other tokens → their block, and how often.
        unknown: layers whose inputs were taken for heads or neurons, and are not understood → why.
    """

    __name__ = __name__

    def __init__(self, traits: Any, pipe: Any = None) -> None:
        self.TRAITS, self.pipe = traits, ref(pipe) if pipe is not None else lambda: None
        self.found: list[Group] | None = None
        self.left_out: dict[str, str] = {}
        self.repeated: dict[str, tuple[str, int]] = {}
        self.structure: list[Site] = []
        self.unknown: dict[str, Unknown] = {}

    def watch(self, settings: Sampling, sites: bool = False) -> None:
        """Find out what the pipeline calls when it samples with these settings: its layers once, heads every time.

        Args:
            sites: look for heads and neurons, too.

        Raises:
            SpecError: the pipeline refuses the call.
        """
        pipe = self.pipe()
        if pipe is None or (self.found is not None and not sites):
            return
        network = getattr(pipe, self.TRAITS.denoiser)
        network = getattr(network, "_orig_mod", network)
        with sampling.explained(pipe, settings, "the prompt 'a'"):
            if self.found is None:
                self.found, self.left_out, self.repeated = observe(pipe, network, settings)
            if sites:
                self.structure, self.unknown = look_into(pipe, network, settings, self.found)

    def blocks(self, denoiser: nn.Module) -> list[str]:
        """Of the layers that can be pruned, in order of execution."""
        return list(dict.fromkeys(str(block_of(denoiser, group[0])) for group in self.groups(denoiser)))

    def groups(self, denoiser: nn.Module) -> list[Group]:
        """Layers by the tensor that they read, in the order of their first calls."""
        if self.found is not None:
            return self.found
        known = [name for name, module in denoiser.named_modules() if matrices.is_layer(module)]
        return [(name,) for name in known if block_of(denoiser, name)]

    def units(self, denoiser: nn.Module) -> list[Unit]:
        return [(group,) for group in self.groups(denoiser)]

    def sites(self, denoiser: nn.Module) -> Sequence[Site]:
        """Those that one call has proved; none before a call was watched for them."""
        return self.structure

    def encode(self, pipe: Any, prompts: Sequence[str], settings: Sampling) -> dict[str, Any]:
        """The prompts, and what the pipeline's own encode_prompt answers for them until the denoiser is called."""
        answers: list[Any] = []
        given = {"prompt": list(prompts)}
        with torch.no_grad(), observing.recording(pipe, answers):
            network = getattr(pipe, self.TRAITS.denoiser)
            observing.first_call(network, lambda: sampling.run_pipeline(pipe, given, settings, prompts, 0))
        return given | {sampling.ANSWERS: answers}


FAMILIES: WeakKeyDictionary[nn.Module, AutoFamily] = WeakKeyDictionary()
"""by the denoiser, so that what was observed stays known while its weights change"""


def of(pipe: Any, traits: Any) -> AutoFamily | None:
    """The family of a pipeline of diffusers with a denoiser and an encode_prompt of its own; None of others.

    Args:
        traits: models.Traits, the class.
    """
    parts = {name: getattr(pipe, name, None) for name in (*DENOISERS, SCHEDULER)}
    parts = {name: getattr(part, "_orig_mod", part) for name, part in parts.items() if part is not None}
    config = getattr(parts.get(SCHEDULER), "config", {})
    told = traits_of(type(pipe), {name: type(part).__name__ for name, part in parts.items()}, config, traits)
    denoiser = None if told is None else parts[told.denoiser]
    if not isinstance(denoiser, nn.Module):
        return None
    known = FAMILIES.get(denoiser)
    if known is None or known.pipe() is None:
        known = FAMILIES[denoiser] = AutoFamily(told, pipe)
    return known


def of_index(cls: type, index: Mapping[str, Any], scheduler: Mapping[str, Any], traits: Any) -> AutoFamily | None:
    """The family of such a pipeline by its model_index.json and its scheduler's configuration: traits alone."""
    entries = {name: entry[1] for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    told = traits_of(cls, {name: str(entry) for name, entry in entries.items() if entry}, scheduler, traits)
    return None if told is None else AutoFamily(told)


def traits_of(cls: type, parts: Mapping[str, str], scheduler: Mapping[str, Any], traits: Any) -> Any:
    """The models.Traits of a pipeline's class with components (name → class); None where it is no text-to-image one."""
    component = next((name for name in DENOISERS if name in parts), None)
    if component is None or SCHEDULER not in parts or not hasattr(cls, "encode_prompt"):
        return None
    usable = schedulers.FLOW if schedulers.is_flow(parts[SCHEDULER], scheduler) else schedulers.DIFFUSION
    return traits(
        pipeline=cls.__name__,
        denoiser=component,
        network=parts[component],
        schedulers=tuple(sorted(usable)),
        sides=("pixels", 1),
    )


def observe(
    pipe: Any, denoiser: nn.Module, settings: Sampling
) -> tuple[list[Group], dict[str, str], dict[str, tuple[str, int]]]:
    """The groups of a denoiser's prunable layers, why each other layer stays dense, and what is used again."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    left_out = {name: UNCALLED for name, module in denoiser.named_modules() if matrices.is_layer(module)}
    kept: list[Tensor] = []  # so that no address is used twice
    uses: Counter[str] = Counter()

    def note(name: str, x: Tensor) -> None:
        uses[name] += 1
        if left_out.get(name) != UNCALLED:
            return
        block = block_of(denoiser, name)
        if block is None:
            left_out[name] = "outside the blocks"
        elif x.shape[:-1].numel() <= GUIDED or (x.dim() > 2 and x.shape[1:-1].numel() == 1):
            left_out[name] = "reads one token of each sample"
        else:
            del left_out[name]
            kept.append(x)
            key = (block, x.data_ptr(), tuple(x.shape), x.stride(), x._version, x.dtype)
            groups.setdefault(key, []).append(name)

    with ExitStack() as stack:
        for name in left_out:

            def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                note(name, matrices.tokens(layer, args[0] if args else kwargs["input"]))

            layer = denoiser.get_submodule(name)
            stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        call_once(pipe, denoiser, settings)
    again = {
        name: (str(block_of(denoiser, name)), count)
        for name, count in uses.items()
        if count > 1 and name not in left_out
    }
    return [tuple(group) for group in groups.values()], left_out, again


def call_once(pipe: Any, denoiser: nn.Module, settings: Sampling) -> None:
    """Sample the prompt "a" until the denoiser has answered once."""

    def stop(*_: Any) -> None:
        raise observing.Stop

    with torch.no_grad(), suppress(observing.Stop), ExitStack() as stack:
        stack.callback(denoiser.register_forward_hook(stop).remove)
        sampling.run_pipeline(pipe, {"prompt": ["a"]}, replace(settings, steps=min(2, settings.steps)), ["a"], 0)


def look_into(
    pipe: Any, denoiser: nn.Module, settings: Sampling, groups: Sequence[Group]
) -> tuple[list[Site], dict[str, Unknown]]:
    """The heads and neurons of all blocks, each looked into when it is called, and what is not understood."""
    sites: list[Site] = []
    unknown: dict[str, Unknown] = {}
    inside: dict[str, list[Group]] = {}
    for group in groups:
        inside.setdefault(str(block_of(denoiser, group[0])), []).append(group)
    left = set(inside)
    with ExitStack() as stack:
        for at in inside:

            def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], at: str = at) -> None:
                if at in left:
                    left.remove(at)
                    found, refused = _structure.sites_of(denoiser, at, inside[at], Call(block, args, kwargs))
                    sites.extend(found)
                    unknown.update(refused)

            stack.callback(denoiser.get_submodule(at).register_forward_pre_hook(hook, with_kwargs=True).remove)
        call_once(pipe, denoiser, settings)
    for at in left:
        unknown[inside[at][0][0]] = Unknown("heads", "its block is not called as a whole")
    return sites, unknown
