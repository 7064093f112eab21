"""One layer's or one site's problem, solved: method and pattern put together. Tensors in, tensors out."""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from obsdiff import registry
from obsdiff.calibration.statistics import Input
from obsdiff.solver import elimination, obs
from obsdiff.spec import PruneSpec
from obsdiff.surgery import Site, removed_channels


def solve_layer(
    weight: Tensor,
    input: Input | None,
    method: ModuleType,
    spec: PruneSpec,
    sparsity: float,
    generator: torch.Generator,
) -> obs.Swept:
    """Make weights of a layer zero as method and pattern have it.

    Args:
        weight: (rows, columns) float32.
        input: what calibration found out, where the method asks for it.
        sparsity: this layer's.

    Raises:
        obs.FactorisationError: the Hessian cannot be factored.
    """
    pattern = spec.resolved
    entry = registry.load("obsdiff.patterns", pattern.entry)
    group = method.TRAITS.group if spec.group == "method" else spec.group
    blocks = pattern.traits.grouped and group == "block"

    def keep(scores: Tensor, start: int = 0) -> Tensor:
        mask: Tensor = entry.keep(scores, sparsity, group, start, **pattern.arguments)
        return mask

    if method.TRAITS.compensates:
        assert input is not None
        select = keep
        if pattern.traits.grouped and not blocks:
            whole = keep(obs.saliency(weight, input.factor, slice(0, weight.shape[1])))

            def select(scores: Tensor, start: int = 0) -> Tensor:
                return whole[:, start : start + scores.shape[1]]

        stride = pattern.multiple if pattern.multiple > 1 else None
        return obs.sweep(weight, input.factor, select, spec.block_size, stride, spec.compensate, pattern.stay)
    scores = method.score(weight, input, generator)
    if blocks:
        starts = range(0, weight.shape[1], spec.block_size)
        mask = torch.cat([keep(scores[:, i : i + spec.block_size], i) for i in starts], dim=1)
    else:
        mask = keep(scores)
    if hasattr(method, "refine"):
        mask = method.refine(weight, mask, input, scores, pattern.multiple)
    return obs.Swept(weight.masked_fill(~mask, 0.0), mask, None)


def solve_site(
    site: Site,
    weights: Sequence[Tensor],
    producers: Sequence[Tensor],
    inputs: Sequence[Input | None],
    method: ModuleType,
    spec: PruneSpec,
    count: int,
    generator: torch.Generator,
) -> tuple[list[Tensor], Tensor]:
    """Remove `count` of a site's groups; its streams rank them together.

    Args:
        weights: the consumers', (rows, columns) float32, a stream each.
        producers: (channels, fan-in) float32, a stream each: all weights that make a channel, row by row.
        inputs: of the consumers.

    Returns:
        The consumers' weights with removed columns zero, and the kept groups, ascending (k,) int64.
    """
    firsts = [stream.consumer.first for stream in site.streams]
    if method.TRAITS.compensates:
        parts = zip(weights, inputs, firsts, strict=True)
        problems = [elimination.Problem(w, i.factor, first) for w, i, first in parts if i is not None]
        return elimination.eliminate(problems, site.size, site.groups, count, spec.compensate)
    channels = site.groups * site.size
    costs = []
    for weight, makers, input, first in zip(weights, producers, inputs, firsts, strict=True):
        span = slice(first, first + channels)
        seen = None if input is None else input.narrow(span)
        columns: Tensor = method.score_columns(weight[:, span], makers, seen, generator)
        costs.append(columns.view(site.groups, site.size).sum(dim=1))
    kept = elimination.fused(costs).argsort(stable=True)[count:].sort().values
    dead = removed_channels(site, kept)
    pruned = [weight.clone() for weight in weights]
    for weight, first in zip(pruned, firsts, strict=True):
        weight[:, first : first + channels].masked_fill_(dead, 0.0)
    return pruned, kept
