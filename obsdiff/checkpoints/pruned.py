"""Pruned weights in memory: what replaces a dense denoiser's layers."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff import models, surgery
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.report import SiteReport
from obsdiff.surgery import Site, State


@dataclass(frozen=True)
class Pruned:
    """Weights that replace a dense denoiser's.

    Attributes:
        states: layer → its parameters, at their small shapes; bias None where pruning left it.
        refitted: the same of layers that lost no weights, and were fitted to the dense model's outputs.
        kept: heads and neurons that stay, where any were removed.
    """

    states: dict[str, State]
    refitted: dict[str, State] = field(default_factory=dict)
    kept: list[SiteReport] = field(default_factory=list)

    @property
    def changed(self) -> dict[str, State]:
        """All layers that are not the dense model's."""
        return self.states | self.refitted

    def sites(self, family: Any, denoiser: nn.Module) -> list[tuple[Site, Tensor]]:
        """The dense denoiser's sites that lost groups, and the (k,) int64 indices of those that stay."""
        kept = {(site.layer, site.kind): torch.tensor(site.kept) for site in self.kept}
        if not kept:
            return []
        named = [((site.layers[0], site.kind), site) for site in family.sites(denoiser)]
        return [(site, kept[name]) for name, site in named if name in kept]

    def consumers(self, family: Any, denoiser: nn.Module) -> dict[str, State]:
        """Layers whose columns lost weights, at the dense model's shapes, removed columns zero."""
        found = dict(self.states)
        sites = self.sites(family, denoiser)
        for name in {name for site, _ in sites for name in site.layers}:
            del found[name]
        for layer in dict.fromkeys(stream.consumer.layer for site, _ in sites for stream in site.streams):
            columns = surgery.staying_columns(sites, layer, models.linear(denoiser, layer).in_features)
            small, bias = self.states[layer]
            weight = torch.zeros(len(small), len(columns), dtype=small.dtype)
            weight[:, columns] = small
            found[layer] = State(weight, bias)
        return found

    def install(self, family: Any, denoiser: nn.Module) -> None:
        """Put the pruned layers into the dense denoiser they were made from."""
        heads = {site.owner: len(kept) for site, kept in self.sites(family, denoiser) if site.owner}
        surgery.install(denoiser, self.changed, heads)


@dataclass(frozen=True)
class Checkpoint(Pruned):
    """Pruned weights that were read from a folder, and its manifest."""

    manifest: Manifest = field(kw_only=True)
