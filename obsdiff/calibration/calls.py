"""Calls of a denoiser as data: arguments with their tensors taken out, so that a call can be stored and run again.

Arguments are nested dicts, lists and tuples of tensors, numbers, texts, truth values and None; in a folded call each
tensor is replaced by its name in a table of tensors. A tensor that several calls get (the text) is in the table once.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff.errors import SpecError


@dataclass(frozen=True)
class Call:
    """One call of the denoiser.

    Attributes:
        batch: index of the batch of prompts it is for.
        step: 0-based turn of the sampling loop; a scheduler may call several times a turn (Heun).
        arguments: folded positional and keyword arguments, JSON-able.
    """

    batch: int
    step: int
    arguments: Any

    @property
    def names(self) -> list[str]:
        """Of its tensors."""
        return list(named(self.arguments))


class Recorder:
    """A forward pre-hook of the denoiser, with keyword arguments, that keeps what it is called with.

    Attributes:
        calls: as (step, folded arguments).
        tensors: name → tensor in CPU memory.
    """

    def __init__(self, steps: Any) -> None:
        self.steps = steps
        self.calls: list[tuple[int, Any]] = []
        self.tensors: dict[str, Tensor] = {}
        self.last: dict[tuple[int, int], tuple[Tensor, str]] = {}

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep a call; SpecError where an argument is of a kind that cannot be stored."""
        device = next(module.parameters()).device
        fresh: dict[tuple[int, int], tuple[Tensor, str]] = {}

        def keep(tensor: Tensor) -> Any:
            # the very tensor of the call before, unchanged: the reference in `last` keeps its id from being reused
            key = (id(tensor), tensor._version)
            known = fresh.get(key) or self.last.get(key)
            name = known[1] if known else str(len(self.tensors))
            if not known:
                self.tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
            fresh[key] = (tensor, name)
            return {"tensor": name, "moves": tensor.device == device}

        self.calls.append((self.steps.now, fold([list(args), dict(kwargs)], keep)))
        self.last = fresh


def fold(value: Any, keep: Callable[[Tensor], Any]) -> Any:
    """Nested arguments as JSON, each tensor replaced by what `keep` gives for it.

    Raises:
        SpecError: there is something else among them.
    """
    if isinstance(value, Tensor):
        return keep(value)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: fold(part, keep) for key, part in value.items()}}
    if type(value) in (list, tuple):
        return {type(value).__name__: [fold(part, keep) for part in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SpecError(
        f"packages: 'sequential' keeps the denoiser's arguments, and one of this pipeline is a {type(value).__name__}; "
        "give another value, such as 4"
    )


def unfold(folded: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The arguments that fold() was given, with these tensors."""
    if not isinstance(folded, dict):
        return folded
    if "tensor" in folded:
        return tensors[folded["tensor"]]
    ((kind, parts),) = folded.items()
    if kind == "dict":
        return {key: unfold(part, tensors) for key, part in parts.items()}
    return (tuple if kind == "tuple" else list)(unfold(part, tensors) for part in parts)


def named(folded: Any) -> dict[str, bool]:
    """Names of the tensors of folded arguments → whether they are on the denoiser's device."""
    if not isinstance(folded, dict):
        return {}
    if "tensor" in folded:
        return {folded["tensor"]: folded["moves"]}
    ((_, parts),) = folded.items()
    found: dict[str, bool] = {}
    for part in parts.values() if isinstance(parts, dict) else parts:
        found |= named(part)
    return found


def placed(call: Call, tensors: Mapping[str, Tensor], device: torch.device, names: Set[str]) -> dict[str, Tensor]:
    """Those of a call's tensors that have these names, copied to where the call wants them."""
    return {
        name: tensors[name].to(device if moves else "cpu", copy=True)
        for name, moves in named(call.arguments).items()
        if name in names
    }
