"""What of a denoiser is pruned and what stays dense, block numbers written as `*`: for a person to judge beforehand."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from obsdiff import matrices, models
from obsdiff.packages import Group
from obsdiff.targets import Target, starred

EXCLUDED = "left out by the spec"
ASKED = "a 1×1 convolution; pruned with convolutions: true"


@dataclass(frozen=True)
class Part:
    """Layers of the same names in several blocks.

    Attributes:
        names: of the layers that read one input, `*` for numbers.
        count: how many times that input is there.
        weights: of all these layers.
        share: of all the denoiser's parameters.
        pruned: whether they lose weights.
        why: what keeps them dense, where it is known.
    """

    names: list[str]
    count: int
    weights: int
    share: float
    pruned: bool
    why: str


def parts_of(family: Any, denoiser: nn.Module, chosen: Sequence[Target]) -> list[Part]:
    """All linear layers and 1×1 convolutions: what is pruned, in order of execution, then what stays dense."""
    touched = {name for target in chosen for name in target.touched}
    every = models.groups(family, denoiser)
    groups: list[tuple[Group, bool, str]]
    groups = [(group, True, "") for group in every if touched & set(group)]
    pruned = {name for group, *_ in groups for name in group}
    reach = {name for group in family.groups(denoiser) for name in group}
    reasons = {name: ASKED for group in every for name in group} | getattr(family, "left_out", {})
    for name, module in denoiser.named_modules():
        if matrices.is_layer(module) and name not in pruned:
            groups.append(((name,), False, EXCLUDED if name in reach else reasons.get(name, "")))
    return list(counted(denoiser, groups))


def counted(denoiser: nn.Module, groups: Iterable[tuple[Group, bool, str]]) -> Iterator[Part]:
    total = sum(p.numel() for p in denoiser.parameters())
    found: dict[tuple[Group, bool, str], list[int]] = {}
    for group, pruned, why in groups:
        key = (tuple(dict.fromkeys(map(starred, group))), pruned, why)
        found.setdefault(key, []).append(sum(models.linear(denoiser, name).weight.numel() for name in group))
    for (names, pruned, why), weights in found.items():
        yield Part(list(names), len(weights), sum(weights), sum(weights) / total, pruned, why)


def describe(parts: Sequence[Part]) -> list[str]:
    """As lines, the share of what is neither last."""
    rows = [(shortened(part.names), part) for part in parts]
    rest = 1 - sum(part.share for part in parts)
    width = max((len(text) for text, _ in rows), default=20)
    lines = [f"{'layers that read one input':{width}}  times  share of parameters"]
    for text, part in rows:
        fate = "" if part.pruned else f"  stays dense: {part.why}" if part.why else "  stays dense"
        lines.append(f"{text:{width}}  {part.count:5}  {part.share:6.1%}{fate}")
    return [*lines, f"{'everything else, biases among it':{width}}         {rest:6.1%}  stays dense"]


def shortened(names: Sequence[str]) -> str:
    """`blocks.*.attn.to_q, to_k, to_v`."""
    first, *others = names
    stem = first.rpartition(".")[0] + "."
    return ", ".join([first, *(name.removeprefix(stem) for name in others)])
