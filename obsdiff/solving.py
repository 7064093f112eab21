"""One layer's or one site's problem, solved: method and pattern put together. Tensors in, tensors out."""

from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor

from obsdiff import registry
from obsdiff.sites import Site
from obsdiff.solver import admm, elimination, obs, ranking, resolve
from obsdiff.solver.statistics import Input
from obsdiff.spec import PruneSpec
from obsdiff.surgery import removed_channels

Keep = Callable[..., Tensor]
"""(scores, index of their first column, comparison group) → the pattern's keep mask"""


def solve_layer(
    weight: Tensor,
    input: Input | None,
    method: ModuleType,
    spec: PruneSpec,
    sparsity: float,
    generator: torch.Generator,
    rows: Tensor | None = None,
) -> obs.Swept:
    """Make weights of a layer zero as method and pattern have it.

    Args:
        weight: (rows, columns) float32.
        input: what calibration found out, where the method asks for it.
        sparsity: this layer's.
        rows: (rows,) float32 > 0, how much an output row's squared error counts; by default all alike.

    Raises:
        factors.FactorisationError: the Hessian cannot be factored.
    """
    if rows is not None:  # a row's squared error counts ω where the row is √ω of itself
        root = rows.sqrt()[:, None]
        solved = solve_layer(weight * root, input, method, spec, sparsity, generator)
        return obs.Swept(solved.weight / root, solved.keep, None)
    pattern = spec.resolved
    entry = registry.load("obsdiff.patterns", pattern.entry)
    group = spec.chosen_group

    def keep(scores: Tensor, start: int = 0, group: str = group) -> Tensor:
        mask: Tensor = entry.keep(scores, sparsity, group, start, **pattern.arguments)
        return mask

    if method.TRAITS.compensates:
        assert input is not None
        return compensated(weight, input, spec, group, keep)
    scores = method.score(weight, input, generator)
    if pattern.traits.grouped and group == "block":
        starts = range(0, weight.shape[1], spec.block_size)
        mask = torch.cat([keep(scores[:, i : i + spec.block_size], i) for i in starts], dim=1)
    else:
        mask = keep(scores)
    if hasattr(method, "refine"):
        mask = method.refine(weight, mask, input, scores, pattern.multiple)
    return obs.Swept(weight.masked_fill(~mask, 0.0), mask, None)


def compensated(weight: Tensor, input: Input, spec: PruneSpec, group: str, keep: Keep) -> obs.Swept:
    """solve_layer() by the spec's solver; of `best` the solution with the smaller error, tr(ΔW (H + λI) ΔWᵀ)."""
    assert input.hessian is not None
    solver = spec.chosen_solver
    if solver == "sweep" and not spec.resolve:
        return swept(weight, input, spec, group, keep)
    hessian = resolve.damped(input.hessian, input.factor)
    live = weight.masked_fill(input.factor.dead, 0.0)
    solutions = []
    if solver in ("sweep", "best"):
        start = swept(weight, input, spec, group, keep)
        solutions.append(obs.Swept(start.weight, start.keep, None))
    if solver in ("admm", "best"):
        # blocks are a column sweep's; weights that are compared in blocks there are compared in the layer here
        whole = "layer" if group == "block" else group
        found, mask = admm.admm(live, hessian, lambda scores: keep(scores, group=whole))
        solutions.append(obs.Swept(found, mask, None))
    if not spec.compensate:
        solutions = [obs.Swept(live.masked_fill(~mask, 0.0), mask, None) for _, mask, _ in solutions]
    else:
        solutions = [obs.Swept(resolve.resolve(live, hessian, mask, start), mask, None) for start, mask, _ in solutions]
    return (
        min(solutions, key=lambda one: obs.energy(one.weight - live, hessian)) if len(solutions) > 1 else solutions[0]
    )


def swept(weight: Tensor, input: Input, spec: PruneSpec, group: str, keep: Keep) -> obs.Swept:
    """The column sweep of obsdiff/solver/obs.py with the spec's pattern and comparison group."""
    pattern = spec.resolved
    select = keep
    if pattern.traits.grouped and group != "block":
        whole = keep(obs.saliency(weight, input.factor, slice(0, weight.shape[1])))

        def select(scores: Tensor, start: int = 0) -> Tensor:
            return whole[:, start : start + scores.shape[1]]

    stride = pattern.multiple if pattern.multiple > 1 else None
    return obs.sweep(weight, input.factor, select, spec.block_size, stride, spec.compensate, pattern.stay)


def solve_site(
    site: Site,
    weights: Sequence[Tensor],
    producers: Sequence[Tensor],
    inputs: Sequence[Input | None],
    method: ModuleType,
    spec: PruneSpec,
    count: int,
    generator: torch.Generator,
    rows: Sequence[Tensor | None] | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Remove `count` of a site's groups; its streams rank them together.

    Args:
        weights: the consumers', (rows, columns) float32, one per stream.
        producers: (channels, fan-in) float32, one per stream: all weights that make a channel, row by row.
        inputs: of the consumers.
        rows: of each consumer, as in solve_layer().

    Returns:
        The consumers' weights with removed columns zero, and the kept groups, ascending (k,) int64.
    """
    if rows is not None and any(one is not None for one in rows):
        roots = [
            torch.ones_like(w[:, :1]) if one is None else one.sqrt()[:, None]
            for w, one in zip(weights, rows, strict=True)
        ]
        scaled = [w * root for w, root in zip(weights, roots, strict=True)]
        pruned, kept = solve_site(site, scaled, producers, inputs, method, spec, count, generator)
        return [w / root for w, root in zip(pruned, roots, strict=True)], kept
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
    kept = ranking.fused(costs).argsort(stable=True)[count:].sort().values
    dead = removed_channels(site, kept)
    pruned = [weight.clone() for weight in weights]
    for weight, first in zip(pruned, firsts, strict=True):
        weight[:, first : first + channels].masked_fill_(dead, 0.0)
    return pruned, kept
