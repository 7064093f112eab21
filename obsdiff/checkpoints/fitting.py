"""Whether a checkpoint belongs to a pipeline: made from it, and of layers that it has."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from obsdiff import matrices, models, surgery
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.checkpoints.pruned import Checkpoint
from obsdiff.pipelines.identity import ABSENT, SCHEDULER, Identity, different
from obsdiff.sites import Site
from obsdiff.surgery import State


def mismatches(pipe: Any, manifest: Manifest, here: Identity, any_components: bool) -> Iterator[str]:
    """Why a pipeline is not the one that a checkpoint was made from; its scheduler is a choice of use."""
    there, denoiser = manifest.base, models.family_of(pipe).TRAITS.denoiser
    names = [name for name in different(here, there) if name != SCHEDULER]
    dtype = str(models.denoiser_of(pipe).dtype).removeprefix("torch.")
    if dtype != manifest.dtype:
        yield f"made in {manifest.dtype}, and this pipeline is in {dtype}; open it with dtype {manifest.dtype}"
    if denoiser not in there:
        yield f"made from a pipeline that has no {denoiser}; use the model it was made from"
    elif denoiser in names:
        hashes = f"SHA-256 {there[denoiser][:8]}…, here {here.get(denoiser, ABSENT)[:8]}…"
        yield f"made from another {denoiser} than this pipeline's ({hashes}); use the dense model it was made from"
    if names and not any_components:
        told = " and ".join(
            name
            + (" (left out here)" if here.get(name, ABSENT) == ABSENT else "")
            + (" (left out there)" if there.get(name, ABSENT) == ABSENT else "")
            for name in names
        )
        yield (
            f"made for another {told} than this pipeline's; use the pipeline it was made from, or pass "
            f"any_components=True (--any-components) to check the {denoiser} alone"
        )


def there(site: Site, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a denoiser of these modules has a site: its layers, its channels in them, and its number of heads."""
    channels, spans = site.groups * site.size, [(stream.consumer, "in_features") for stream in site.streams]
    spans += [(maker, "out_features") for stream in site.streams for maker in stream.producers]
    fits = all(first + channels <= getattr(modules.get(layer), width, 0) for (layer, first), width in spans)
    counted = not site.owner or getattr(modules.get(site.owner), "heads", None) == site.groups
    return bool(site.streams) and fits and counted


def misfits(pruned: Checkpoint, family: Any, denoiser: nn.Module) -> Iterator[str]:
    """Layers of a checkpoint that the denoiser does not have in that shape."""
    modules = dict(denoiser.named_modules())
    every = {name: layer for name, layer in modules.items() if matrices.is_layer(layer)}
    for layer in pruned.manifest.layers:
        if layer.name not in every or matrices.shape(every[layer.name]) != layer.shape:
            yield f"this pipeline has no layer {layer.name!r} of shape {list(layer.shape)}"
            return
    sites = pruned.sites(family, denoiser)
    known = {(site.layers[0], site.kind, site.groups) for site, _ in sites if there(site, modules)}
    for site in pruned.kept:
        if (site.layer, site.kind, site.groups) not in known:
            yield f"this pipeline has no {site.groups} {site.kind} at {site.layer!r}"
            return
    dense = {name: every[name] for site, _ in sites for name in site.layers}
    hollow = {name: State(layer.weight.detach().to("meta"), None) for name, layer in dense.items()}
    expected = {name: tuple(state.weight.shape) for name, state in surgery.shrink(hollow, sites).items()}
    for name in pruned.refitted:
        if name not in every:
            yield f"this pipeline has no layer {name!r}"
            return
    for name, state in pruned.changed.items():
        shape, dtype = expected.get(name, matrices.shape(every[name])), every[name].weight.dtype
        if (tuple(state.weight.shape), state.weight.dtype) != (shape, dtype):
            yield f"{name!r} is {tuple(state.weight.shape)} {state.weight.dtype}, and should be {shape} {dtype}"
            return
