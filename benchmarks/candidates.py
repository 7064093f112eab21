"""Pruned weights that take turns with the dense ones in one pipeline."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from obsdiff import PruneSpec, models, surgery
from obsdiff.checkpoints.checkpoint import Pruned
from obsdiff.errors import SpecError


def spec_of(text: str) -> PruneSpec:
    """`structured=0.5`, or a pattern alone such as 2:4, as a spec that needs no calibration."""
    pattern, _, amount = text.partition("=")
    try:
        sparsity = float(amount) if amount else None
    except ValueError:
        raise SpecError(f"patterns: {text!r} is not PATTERN=SPARSITY, such as structured=0.5") from None
    return PruneSpec(method="magnitude", pattern=pattern, sparsity=sparsity)


def everything_dense(pipe: Any) -> Callable[[], None]:
    """What puts the pipeline's present linear layers and head counts back."""
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    dense = {name: surgery.state_of(m) for name, m in denoiser.named_modules() if isinstance(m, nn.Linear)}
    heads = {site.owner: site.groups for site in family.sites(denoiser) if site.owner}
    return lambda: surgery.install(denoiser, dense, heads)


def taken_off(pipe: Any, change: Callable[[], Mapping[str, Any]]) -> Pruned:
    """The weights that `change` puts into a dense pipeline, which is dense again afterwards.

    Args:
        change: prunes the pipeline or loads a checkpoint into it, and returns the manifest.
    """
    restore, denoiser = everything_dense(pipe), models.denoiser_of(pipe)
    record = dict(change())
    names = [layer["name"] for layer in record["layers"]]
    states = {name: surgery.state_of(models.linear(denoiser, name)) for name in names}
    restore()
    return Pruned(record, states)
