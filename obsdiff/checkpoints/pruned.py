"""Pruned weights in memory: what replaces a dense denoiser's layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff import models, surgery
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.report import SiteReport
from obsdiff.sites import Site
from obsdiff.surgery import State


@dataclass(frozen=True)
class Weights:
    """Parameters of layers and head counts of attentions, as a denoiser can be given them."""

    layers: Mapping[str, State]
    heads: Mapping[str, int]

    @classmethod
    def present(cls, denoiser: nn.Module, names: Sequence[str]) -> "Weights":
        """What these layers of a denoiser hold now, and the head counts of all its attentions."""
        layers = {name: surgery.state_of(models.linear(denoiser, name)) for name in names}
        heads = {name: getattr(module, "heads", None) for name, module in denoiser.named_modules()}
        return cls(layers, {name: count for name, count in heads.items() if isinstance(count, int)})

    def under(self, other: "Weights") -> "Weights":
        """The other's, and these where it has none."""
        return Weights({**self.layers, **other.layers}, {**self.heads, **other.heads})

    def as_in(self, denoiser: nn.Module) -> "Weights":
        """The same weights as they are in the denoiser that they were installed in, on its device."""
        return Weights({name: surgery.state_of(models.linear(denoiser, name)) for name in self.layers}, self.heads)

    def install(self, denoiser: nn.Module) -> None:
        surgery.install(denoiser, self.layers, self.heads)


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
        known = {(site.layers[0], site.kind): site for site in family.sites(denoiser)} if self.kept else {}
        found = [(one.structure or known.get((one.layer, one.kind)), torch.tensor(one.kept)) for one in self.kept]
        return [(site, kept) for site, kept in found if site is not None]

    def consumers(self, family: Any, denoiser: nn.Module) -> dict[str, State]:
        """Layers whose columns lost weights, at the dense model's shapes, removed columns zero."""
        found = dict(self.states)
        sites = self.sites(family, denoiser)
        for name in {name for site, _ in sites for name in site.layers}:
            del found[name]
        for layer in dict.fromkeys(stream.consumer.layer for site, _ in sites for stream in site.streams):
            _, width = models.shape(denoiser, layer)
            columns = surgery.staying_columns(sites, layer, width)
            small, bias = self.states[layer]
            weight = torch.zeros(len(small), len(columns), dtype=small.dtype)
            weight[:, columns] = small
            found[layer] = State(weight, bias)
        return found

    def weights(self, family: Any, denoiser: nn.Module) -> Weights:
        """What the dense denoiser that they were made from is to be given."""
        return Weights(
            self.changed, {site.owner: len(kept) for site, kept in self.sites(family, denoiser) if site.owner}
        )

    def install(self, family: Any, denoiser: nn.Module) -> None:
        """Put the pruned layers into the dense denoiser they were made from."""
        self.weights(family, denoiser).install(denoiser)


@dataclass(frozen=True)
class Checkpoint(Pruned):
    """Pruned weights that were read from a folder, and its manifest."""

    manifest: Manifest = field(kw_only=True)
