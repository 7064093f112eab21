"""Layers replaced by smaller ones: sites without some of their heads or neurons."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from obsdiff import matrices
from obsdiff.matrices import Layer
from obsdiff.sites import Site


class State(NamedTuple):
    """A layer's parameters, the weight as (rows, columns)."""

    weight: Tensor
    bias: Tensor | None


def layer_of(denoiser: nn.Module, name: str) -> Layer:
    """A layer that is known to be there."""
    layer = denoiser.get_submodule(name)
    assert matrices.is_layer(layer)
    return layer


def state_of(layer: Layer) -> State:
    return State(matrices.matrix(layer).detach(), None if layer.bias is None else layer.bias.detach())


@torch.no_grad()
def install(denoiser: nn.Module, states: Mapping[str, State], heads: Mapping[str, int]) -> None:
    """Give layers these parameters, of whatever shape, and attentions these head counts.

    Tensors are taken over in the layer's dtype and device, and shared where they have them already.
    """
    for name, state in states.items():
        matrices.put(layer_of(denoiser, name), *state)
    for name, count in heads.items():
        attention: Any = denoiser.get_submodule(name)
        if attention.heads == count:
            continue
        # widths that diffusers' attention classes derive from the head count
        for width in ("inner_dim", "inner_kv_dim"):
            if hasattr(attention, width):
                setattr(attention, width, getattr(attention, width) // attention.heads * count)
        attention.heads = count
        if hasattr(attention, "sliceable_head_dim"):
            attention.sliceable_head_dim = count


def removed_channels(site: Site, kept: Tensor) -> Tensor:
    """(groups · size,) bool, True for the channels of groups that are not in `kept`."""
    gone = torch.ones(site.groups, dtype=torch.bool, device=kept.device)
    gone[kept] = False
    return gone.repeat_interleave(site.size)


def staying_columns(kept: Sequence[tuple[Site, Tensor]], layer: str, columns: int) -> Tensor:
    """(columns,) bool: what a consumer still reads.

    Args:
        kept: sites and, of each, the (k,) int64 ascending indices of the groups that stay.
    """
    stays = torch.ones(columns, dtype=torch.bool)
    for site, groups in kept:
        gone = removed_channels(site, groups.cpu())
        for name, first in (stream.consumer for stream in site.streams):
            if name == layer:
                stays[first : first + len(gone)] &= ~gone
    return stays


def shrink(states: Mapping[str, State], kept: Sequence[tuple[Site, Tensor]]) -> dict[str, State]:
    """The sites' layers without the removed columns and rows.

    Args:
        states: of all the sites' layers, at full size; what is kept is not changed.
        kept: as in staying_columns().
    """
    rows: dict[str, Tensor] = {}
    for site, groups in kept:
        gone = removed_channels(site, groups.cpu())
        for layer, first in (span for stream in site.streams for span in stream.producers):
            mask = rows.setdefault(layer, torch.ones(len(states[layer].weight), dtype=torch.bool))
            mask[first : first + len(gone)] &= ~gone
    columns = {
        layer: staying_columns(kept, layer, states[layer].weight.shape[1])
        for layer in dict.fromkeys(stream.consumer.layer for site, _ in kept for stream in site.streams)
    }
    small = {}
    for name in dict.fromkeys(name for site, _ in kept for name in site.layers):
        weight, bias = states[name]
        if name in columns:
            weight = weight.index_select(1, columns[name].nonzero()[:, 0].to(weight.device))
        if name in rows:
            index = rows[name].nonzero()[:, 0].to(weight.device)
            weight, bias = weight.index_select(0, index), None if bias is None else bias.index_select(0, index)
        small[name] = State(weight.contiguous(), bias)
    return small


def record(denoiser: Any, sites: Sequence[Any]) -> None:
    """Say in the denoiser's config which heads and neurons are left, so that it is not the dense model's any more.

    Args:
        sites: report.SiteReport of each.
    """
    if sites:
        left: dict[str, dict[str, list[int]]] = {}
        for site in sites:
            before = left.setdefault(site.layer, {}).get(site.kind, [0, 0])
            left[site.layer][site.kind] = [before[0] + len(site.kept), before[1] + site.groups]
        denoiser.register_to_config(pruned=left)
