"""The proof that heads or neurons are what they were taken for: taking some away is zeroing their channels."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from obsdiff import surgery
from obsdiff.errors import first_line
from obsdiff.models._tracing import Call
from obsdiff.sites import Site
from obsdiff.surgery import State

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""by how much of what zeroing changes, removing may differ from it"""
HALF_TOLERANCE = 0.1


def disproved(denoiser: nn.Module, block: nn.Module, site: Site, call: Call) -> str:
    """Why removing some groups of a site is not zeroing them; '' where it is."""
    if site.groups < 2:
        return ""
    order = torch.randperm(site.groups, generator=torch.Generator().manual_seed(0))
    kept = [(site, order[: (site.groups + 1) // 2].sort().values)]
    dense: dict[str, State] = {name: surgery.state_of(surgery.layer_of(denoiser, name)) for name in site.layers}
    try:
        small = surgery.shrink(dense, kept)
    except RuntimeError:  # two layers read the same channels, and one of them not all
        return f"its layers do not read the same {site.kind}"
    zeroed = dict(dense)
    for stream in site.streams:
        name = stream.consumer.layer
        weight, bias = zeroed[name]
        stays = surgery.staying_columns(kept, name, weight.shape[1]).to(weight.device)
        zeroed[name] = State(weight * stays, bias)
    heads = {site.owner: site.groups} if site.owner else {}
    watched = [surgery.layer_of(denoiser, stream.consumer.layer) for stream in site.streams]
    whole = answers(block, watched, call)
    try:
        surgery.install(denoiser, zeroed, heads)
        without = answers(block, watched, call)
        surgery.install(denoiser, small, dict.fromkeys(heads, len(kept[0][1])))
        try:
            removed = answers(block, watched, call)
        except (RuntimeError, ValueError, IndexError) as error:
            return f"the block fails without some of its {site.kind} ({first_line(error)})"
    finally:
        surgery.install(denoiser, dense, heads)
    return compared(whole, without, removed, site.kind)


def compared(whole: Sequence[Tensor], without: Sequence[Tensor], removed: Sequence[Tensor], kind: str) -> str:
    shown = False
    for old, zero, gone in zip(whole, without, removed, strict=True):
        change, off = ((a.double() - b.double()).norm() for a, b in ((old, zero), (gone, zero)))
        rounding = 8 * torch.finfo(old.dtype).eps * float(old.double().norm())
        shown |= float(change) > rounding
        if not float(off) <= TOLERANCE.get(old.dtype, HALF_TOLERANCE) * float(change) + rounding:
            return f"removing {kind} is not zeroing their channels"
    return "" if shown else f"zeroing {kind} changes nothing, so one call does not show what they are"


def answers(block: nn.Module, watched: Sequence[nn.Module], call: Call) -> list[Tensor]:
    """What the watched layers and the block answer in a call."""
    found: list[Tensor] = []
    with torch.no_grad(), ExitStack() as stack:
        for layer in watched:
            stack.callback(layer.register_forward_hook(lambda _, args, out: found.append(out)).remove)
        out = call()
    return [*found, *(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.is_floating_point())]
