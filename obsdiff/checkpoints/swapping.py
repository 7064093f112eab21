"""Dense and pruned weights that are swapped in and out of one denoiser."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from obsdiff import matrices, models, surgery
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.checkpoints.pruned import Pruned, Weights
from obsdiff.report import Report

DENSE = "dense"
Swaps = dict[str, Callable[[], None]]
"""name of weights → what installs them"""


def swaps(pipe: Any, weights: Mapping[str, Pruned], resident: bool = False) -> Swaps:
    """DENSE and each name → what installs those weights in the denoiser of a pipeline that is dense now.

    Args:
        resident: keep weights that were installed once on the denoiser's device, for frequent swaps.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    changed = sorted({name for pruned in weights.values() for name in pruned.changed})
    dense = Weights.present(denoiser, changed)
    sets = {name: dense.under(pruned.weights(family, denoiser)) for name, pruned in weights.items()}
    sets[DENSE] = dense

    def put(name: str) -> None:
        sets[name].install(denoiser)
        if resident:
            sets[name] = sets[name].as_in(denoiser)

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
    denoiser = models.denoiser_of(pipe)
    every = [name for name, module in denoiser.named_modules() if matrices.is_layer(module)]
    dense = Weights.present(denoiser, every)
    report = change()
    layers = {layer.name: surgery.state_of(models.linear(denoiser, layer.name)) for layer in report.layers}
    dense.install(denoiser)
    return Pruned(layers, kept=report.sites)
