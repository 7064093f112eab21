"""One target pruned in place: its problem solved, the weights put back, the change accounted for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from obsdiff import models, surgery, targets
from obsdiff.errors import LayerError
from obsdiff.given import Given, bias_moved
from obsdiff.packages import Group
from obsdiff.report import LayerReport, SiteReport
from obsdiff.sampling import prompt_seed
from obsdiff.sites import Site, Span
from obsdiff.solver import factors, obs
from obsdiff.solver.statistics import Input
from obsdiff.solving import solve_layer, solve_site
from obsdiff.spec import PruneSpec
from obsdiff.surgery import State
from obsdiff.targets import Target


@dataclass(frozen=True)
class Problem:
    """What a target is pruned by.

    Attributes:
        spec, method: of the run.
        inputs: of the target's groups, as far as the method calibrates.
        sparsities: of each layer of the target; of sites one number.
        rows: layer → (rows,) weights of its rows' errors; None for all alike.
        given: weights that are pruned already, of a method that takes them.
    """

    spec: PruneSpec
    method: ModuleType
    inputs: Mapping[Group, Input]
    sparsities: Sequence[float]
    rows: Callable[[str], Tensor | None] = lambda layer: None
    given: Given | None = None


class Changes(NamedTuple):
    """What happened to a target's layers and sites."""

    layers: list[LayerReport]
    sites: list[SiteReport]


def prune_target(denoiser: nn.Module, target: Target, problem: Problem) -> Changes:
    """Prune a target in place.

    Raises:
        LayerError: a Hessian cannot be factored.
    """
    try:
        if target.sites:
            return prune_sites(denoiser, target, problem)
        sparsities = dict(zip(target.layers, problem.sparsities, strict=True))
        if problem.given is not None:
            return Changes([take(denoiser, name, problem.given) for name in target.layers], [])
        layers = [layer for group in target.unit for layer in prune_group(denoiser, group, problem, sparsities)]
        return Changes(layers, [])
    except factors.FactorisationError as error:
        raise LayerError(f"{', '.join(target.layers)}: {error}") from None


def prune_group(
    denoiser: nn.Module, group: Group, problem: Problem, sparsities: Mapping[str, float]
) -> Iterator[LayerReport]:
    """Prune the layers that share one input; a Hessian is factored once for all of them."""
    spec, input = problem.spec, problem.inputs.get(group)
    before = {name: surgery.state_of(models.linear(denoiser, name)) for name in group}
    bias = spec.bias and input is not None and all(state.bias is not None for state in before.values())
    used = input.centred() if bias and input is not None and input.hessian is not None else input
    for name in group:
        dense = before[name].weight.float()
        generator = torch.Generator("cpu").manual_seed(prompt_seed(name, spec.seed))
        solved = solve_layer(dense, used, problem.method, spec, sparsities[name], generator, problem.rows(name))
        after = finish(denoiser, name, before[name], solved.weight, input if bias else None)
        removed = solved.keep.numel() - int(solved.keep.count_nonzero())
        # the solver's error is that of its own float32 weights
        error = solved.error if after.weight.dtype == torch.float32 else None
        yield account(name, dense, after.weight.float(), removed, input, used, bool(bias), error)


def take(denoiser: nn.Module, name: str, given: Given) -> LayerReport:
    """Give a layer its pruned parameters."""
    dense = surgery.state_of(models.linear(denoiser, name))
    state = given.state(name, dense)
    surgery.install(denoiser, {name: state}, {})
    removed = state.weight.numel() - int(state.weight.count_nonzero())
    return account(name, dense.weight.float(), state.weight.float(), removed, None, None, bias_moved(state, dense))


def prune_sites(denoiser: nn.Module, target: Target, problem: Problem) -> Changes:
    """Remove heads or neurons of a target's sites: rows of their producers, columns of their consumers.

    Sites that share consumers follow each other, each on the columns that the one before has left.
    """
    spec, inputs = problem.spec, problem.inputs
    changes = Changes([], [])
    states = {name: surgery.state_of(models.linear(denoiser, name)) for name in target.touched}
    consumers = target.layers
    seen = [inputs.get((name,)) for name in consumers]
    bias = bool(spec.bias) and all(
        i is not None and states[name].bias is not None for i, name in zip(seen, consumers, strict=True)
    )
    used = [i.centred() if bias and i is not None and i.hessian is not None else i for i in seen]
    dense = [states[name].weight.float() for name in consumers]
    pruned = dense
    kept: list[tuple[Site, Tensor]] = []
    for site in target.sites:
        count = targets.removed_groups(site, problem.sparsities[0])
        pruned, groups = solve_left(site, kept, pruned, states, used, problem, count)
        kept.append((site, groups))
        structure = site if site.found else None
        changes.sites.append(SiteReport(consumers[0], site.kind, site.groups, groups.tolist(), structure))
    full = dict(states)
    for name, weight, old, i, u in zip(consumers, pruned, dense, seen, used, strict=True):
        full[name] = finish(denoiser, name, states[name], weight, i if bias else None)
        removed = int((~surgery.staying_columns(kept, name, old.shape[1])).sum()) * old.shape[0]
        changes.layers.append(account(name, old, full[name].weight.float(), removed, i, u, bias))
    small = surgery.shrink(full, kept)
    surgery.install(denoiser, small, {site.owner: len(groups) for site, groups in kept if site.owner})
    for name in (n for n in target.touched if n not in consumers):
        old = states[name].weight
        whole, left = old.float().square().sum(), small[name].weight.float().square().sum()
        error = max(float(whole - left), 0.0) / max(float(whole), torch.finfo(torch.float32).tiny)
        removed = old.numel() - small[name].weight.numel()
        changes.layers.append(LayerReport(name, (old.shape[0], old.shape[1]), removed, error))
    return changes


def solve_left(
    site: Site,
    kept: list[tuple[Site, Tensor]],
    weights: Sequence[Tensor],
    states: Mapping[str, State],
    inputs: Sequence[Input | None],
    problem: Problem,
    count: int,
) -> tuple[list[Tensor], Tensor]:
    """solve_site() on the columns that sites before this one have left, and its answer at full width."""
    method, spec = problem.method, problem.spec
    channels = site.groups * site.size
    makers = [
        torch.cat([states[p.layer].weight[p.first : p.first + channels].float() for p in stream.producers], dim=1)
        for stream in site.streams
    ]
    generator = torch.Generator("cpu").manual_seed(prompt_seed(site.streams[0].consumer.layer, spec.seed))
    streams = [stream.consumer for stream in site.streams]
    rows = [problem.rows(consumer.layer) for consumer in streams]
    if not kept:
        return solve_site(site, weights, makers, inputs, method, spec, count, generator, rows)
    stays = [surgery.staying_columns(kept, c.layer, w.shape[1]) for c, w in zip(streams, weights, strict=True)]
    moved = replace(
        site,
        streams=tuple(
            replace(stream, consumer=Span(stream.consumer.layer, int(left[: stream.consumer.first].sum())))
            for stream, left in zip(site.streams, stays, strict=True)
        ),
    )
    columns = [left.to(w.device) for left, w in zip(stays, weights, strict=True)]
    narrow = [w[:, left] for w, left in zip(weights, columns, strict=True)]
    seen = [None if i is None else i.narrow(left) for i, left in zip(inputs, columns, strict=True)]
    solved, groups = solve_site(moved, narrow, makers, seen, method, spec, count, generator, rows)
    wide = [torch.zeros_like(w) for w in weights]
    for out, left, weight in zip(wide, columns, solved, strict=True):
        out[:, left] = weight
    return wide, groups


def finish(denoiser: nn.Module, name: str, dense: State, pruned: Tensor, input: Input | None) -> State:
    """Put a pruned weight into its layer; with `input`, (W − Ŵ) E[x] goes into the bias."""
    weight = pruned.to(dense.weight.dtype)
    bias = dense.bias
    if input is not None and bias is not None:
        delta = dense.weight.float() - weight.float()
        bias = (bias.float() + delta @ input.mean).to(bias.dtype)
    state = State(weight, bias)
    surgery.install(denoiser, {name: state}, {})
    return state


def account(
    name: str,
    dense: Tensor,
    stored: Tensor,
    removed: int,
    input: Input | None,
    used: Input | None,
    bias: bool,
    solved_error: float | None = None,
) -> LayerReport:
    """What happened to a layer: its error by weights, and by the Hessian where there is one.

    Args:
        solved_error: tr(ΔW H ΔWᵀ) of the stored weight on `used`, where the solver knows it.
    """
    whole = float(dense.square().sum())
    error = float((stored - dense).square().sum()) / whole if whole else 0.0
    layer = LayerReport(name, (dense.shape[0], dense.shape[1]), removed, error, bias_moved=bias)
    if input is not None and used is not None and input.hessian is not None and used.hessian is not None:
        error = obs.energy(stored - dense, used.hessian) if solved_error is None else solved_error
        layer.calibration_error = obs.relative(error, dense, input.hessian)
        layer.damping = used.factor.damping
    return layer
