"""Dense and pruned weights that are swapped in and out of one denoiser."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from obsdiff import models, surgery
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.checkpoints.pruned import Pruned
from obsdiff.report import Report
from obsdiff.surgery import State

DENSE = "dense"
Swaps = dict[str, Callable[[], None]]
"""name of weights → what installs them"""


@dataclass(frozen=True)
class Weights:
    """Parameters of linear layers and head counts of attentions, as a denoiser can be given them."""

    layers: Mapping[str, State]
    heads: Mapping[str, int]

    @classmethod
    def present(cls, family: ModuleType, denoiser: nn.Module, names: Sequence[str]) -> "Weights":
        """What these layers of a denoiser hold now, and the head counts of all its attentions."""
        layers = {name: surgery.state_of(models.linear(denoiser, name)) for name in names}
        return cls(layers, {site.owner: site.groups for site in family.sites(denoiser) if site.owner})

    @classmethod
    def of(cls, pruned: Pruned, family: ModuleType, denoiser: nn.Module) -> "Weights":
        """A checkpoint's, for the dense denoiser that it was made from."""
        kept = {site.owner: len(groups) for site, groups in pruned.sites(family, denoiser) if site.owner}
        return cls(pruned.changed, kept)

    def install(self, denoiser: nn.Module) -> None:
        surgery.install(denoiser, self.layers, self.heads)

    def moved_into(self, denoiser: nn.Module) -> "Weights":
        """Install, and return the same weights as they are in the denoiser, on its device."""
        self.install(denoiser)
        return Weights({name: surgery.state_of(models.linear(denoiser, name)) for name in self.layers}, self.heads)


def swaps(pipe: Any, weights: Mapping[str, Pruned], resident: bool = False) -> Swaps:
    """DENSE and each name → what installs those weights in the denoiser of a pipeline that is dense now.

    Args:
        resident: keep weights that were installed once on the denoiser's device, for frequent swaps.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    changed = sorted({name for pruned in weights.values() for name in pruned.changed})
    dense = Weights.present(family, denoiser, changed)
    sets = {name: Weights.of(pruned, family, denoiser) for name, pruned in weights.items()}

    def put(name: str) -> None:
        dense.install(denoiser)
        if name == DENSE:
            return
        if resident:
            sets[name] = sets[name].moved_into(denoiser)
        else:
            sets[name].install(denoiser)

    return {name: partial(put, name) for name in (DENSE, *weights)}


@contextmanager
def swapping(pipe: Any, weights: Mapping[str, Pruned], resident: bool = False) -> Iterator[Swaps]:
    """swaps() for the block of the `with` statement; the pipeline is dense again afterwards."""
    found = swaps(pipe, weights, resident)
    try:
        yield found
    finally:
        found[DENSE]()


def taken_off(pipe: Any, change: Callable[[], Report | Manifest]) -> Pruned:
    """The weights that `change` puts into a dense pipeline, which is dense again afterwards.

    Args:
        change: prunes the pipeline or loads a checkpoint into it, and returns its report or manifest.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    linear = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)]
    dense = Weights.present(family, denoiser, linear)
    report = change()
    layers = {layer.name: surgery.state_of(models.linear(denoiser, layer.name)) for layer in report.layers}
    dense.install(denoiser)
    return Pruned(layers, kept=report.sites)
