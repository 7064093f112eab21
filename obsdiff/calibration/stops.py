"""Where calls of packages: sequential stop, and what they have seen there.

Where a layer is about to be called, its input. Where heads or neurons go, or where a call reads a layer several times,
a module that holds all of that is run once more than the call itself runs it, to see all inputs: rehearsed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from obsdiff import matrices, models
from obsdiff.calibration.waiting import stop
from obsdiff.packages import Group
from obsdiff.targets import Target

Seen = list[tuple[Group, Tensor]]
"""groups, and the input of each"""
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Repeated = Mapping[str, tuple[str, int]]
"""layers that a call reads several times → the block that they are in, and how often"""


class Rehearsed(Exception):
    """All inputs of a target were seen."""


class Entries:
    """What each call under way gave the block that it is in; of blocks with a layer that is read several times."""

    def __init__(self, denoiser: nn.Module, repeated: Repeated) -> None:
        self.repeated = repeated
        self.entered: WeakKeyDictionary[greenlet, dict[str, Arguments]] = WeakKeyDictionary()
        blocks = {block for block, _ in repeated.values()}
        self.handles = [
            denoiser.get_submodule(block).register_forward_pre_hook(self.noting(block), with_kwargs=True)
            for block in blocks
        ]

    def noting(self, block: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.entered[getcurrent()] = {block: (args, kwargs)}

        return hook

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


@contextmanager
def stopping(denoiser: nn.Module, target: Target, entries: Entries) -> Iterator[None]:
    """Inside the block, calls stop at a target with what they have seen of its inputs."""
    with ExitStack() as stack:
        if target.sites:
            scope = denoiser.get_submodule(scope_of(denoiser, target))

            def before(module: nn.Module, args: Any, kwargs: Any) -> None:
                stop(rehearsed(denoiser, module, (args, kwargs), target, len(target.unit)))

            stack.callback(scope.register_forward_pre_hook(before, with_kwargs=True).remove)
            yield
            return
        (group,) = target.unit
        block, uses = entries.repeated.get(group[0], ("", 1))
        busy = False

        def seen(layer: Any, args: tuple[Tensor, ...]) -> None:
            nonlocal busy
            if uses == 1:
                stop([(group, matrices.tokens(layer, args[0]))])
            elif not busy:
                busy = True
                given = entries.entered[getcurrent()][block]
                found = rehearsed(denoiser, denoiser.get_submodule(block), given, target, uses)
                busy = False
                stop(found)

        for name in group:  # whichever is called first; the others follow when the hooks are off
            stack.callback(models.linear(denoiser, name).register_forward_pre_hook(seen).remove)
        yield


def rehearsed(denoiser: nn.Module, module: nn.Module, given: Arguments, target: Target, count: int) -> Seen:
    """Run a module up to the last of a target's inputs, and return them."""
    seen: Seen = []

    def note(group: Group) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def inner(layer: Any, args: tuple[Tensor, ...]) -> None:
            seen.append((group, matrices.tokens(layer, args[0])))
            if len(seen) == count:
                raise Rehearsed

        return inner

    with ExitStack() as stack:
        for group in target.unit:
            stack.callback(models.linear(denoiser, group[0]).register_forward_pre_hook(note(group)).remove)
        with suppress(Rehearsed):
            module.forward(*given[0], **given[1])
    return seen


def scope_of(denoiser: nn.Module, target: Target) -> str:
    """Name of the smallest module that is called and holds all layers of a target."""
    first, *others = (name.split(".") for name in target.touched)
    depth = 0
    while all(len(parts) > depth + 1 and parts[: depth + 1] == first[: depth + 1] for parts in (first, *others)):
        depth += 1
    while isinstance(denoiser.get_submodule(".".join(first[:depth])), nn.ModuleList | nn.ModuleDict):
        depth -= 1
    return ".".join(first[:depth])
