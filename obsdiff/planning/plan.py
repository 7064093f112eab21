"""What a spec will do to a model, from its configuration alone: layers, packages, bytes, parameters, FLOPs."""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass

import torch
from torch import nn

from obsdiff import models, surgery, targets
from obsdiff.pipelines import single_file
from obsdiff.pipelines.loading import configuration
from obsdiff.planning import rates, tree
from obsdiff.planning.counting import count_flops
from obsdiff.planning.effort import EFFICIENCY, Effort, Minutes, effort_of, minutes_of
from obsdiff.planning.memory import Memory, component_bytes, estimate, fitting
from obsdiff.planning.rates import Rate
from obsdiff.planning.tree import Part
from obsdiff.planning.weightless import weightless
from obsdiff.source import Source
from obsdiff.spec import PruneSpec
from obsdiff.surgery import State
from obsdiff.targets import Target


@dataclass(frozen=True)
class PackagePlan:
    layers: list[str]
    statistics_bytes: int
    """of all its statistics at once, float32"""


@dataclass(frozen=True)
class Plan:
    """Counted on the meta device, no weights.

    Attributes:
        layers: every layer that loses weights → its sparsity.
        parameters, pruned_parameters: of the denoiser; a zero is no parameter.
        flops, pruned_flops: of one call of the denoiser for one prompt (two where guided), 2 a multiply-add, as counted
            by torch. Zeros are multiplied like any other number: pruned_flops falls only where heads or neurons go.
        attention_flops, pruned_attention_flops: what of those is the products of attention's queries, keys and values,
            which published counts often leave out.
        theoretical_flops: with the multiplications by zeros of the pruned layers left out.
        sampling_runs: of the whole calibration set; the same set once per package, twice where it is sequential.
        calibration_flops: of all those runs.
        reach: weights of the layers that the family can prune, over all parameters of the denoiser.
        left_dense: linear layers that it never prunes, their names with `*` for block numbers → how many there are.
        parts: all linear layers by name: what is pruned, and what stays dense and why (obsdiff/planning/tree.py).
        memory: estimated bytes (obsdiff/planning/memory.py).
        fits: the mildest way to run within the budget.
        effort: FLOPs of the whole run by phase, those of the solver included (obsdiff/planning/effort.py).
        minutes: how long the phases take at `rate`, a share of which each is taken to get.
    """

    layers: dict[str, float]
    packages: list[PackagePlan]
    statistic: str | None
    parameters: int
    pruned_parameters: int
    flops: int
    pruned_flops: int
    attention_flops: int
    pruned_attention_flops: int
    theoretical_flops: int
    sampling_runs: int
    calibration_flops: int
    reach: float
    left_dense: dict[str, int]
    parts: list[Part]
    memory: Memory
    budget: int
    fits: str
    effort: Effort
    minutes: Minutes
    rate: Rate


def plan(
    source: Source,
    spec: PruneSpec,
    prompts: int = 100,
    budget: int = 24 * 2**30,
    rate: str | None = None,
    calibrated: bool = False,
) -> Plan:
    """Find out what prune() would do.

    Args:
        prompts: calibration prompts, where the spec has none yet.
        budget: bytes of device memory to fit into.
        rate: TFLOP/s of matrix products, such as 300TFLOPS; a device of rates.DEVICES; or `here`, measured.
        calibrated: the dense model's statistics are at hand, so the first package is not sampled for.

    Raises:
        SpecError: the model, the spec or the rate cannot be used.
        LayerError: a layer does not fit the pattern.
    """
    speed = rates.rate_of(rate, source.dtype, source.device)
    single_file.tensors_of(source)
    family, denoiser, work = weightless(source, spec)
    weights, count = component_bytes(source), len(spec.prompts) or prompts
    chosen = targets.find(family, denoiser, spec) if spec.traits.prunes else []
    cuts = targets.cut(denoiser, chosen, spec)
    packages = [
        PackagePlan(
            [name for target in package for name in target.layers],
            targets.package_bytes(denoiser, package, spec.statistic),
        )
        for package in cuts
    ]
    parameters = sum(p.numel() for p in denoiser.parameters())
    in_reach = targets.reach(family, denoiser, spec.convolutions)
    memory = estimate(source, spec, weights, denoiser, cuts, work, count)
    fits = fitting(budget, source, spec, weights, denoiser, chosen, work, count)
    layers: dict[str, float] = {}
    saved, zeros = 0.0, 0
    small = deepcopy(denoiser) if any(target.sites for target in chosen) else denoiser
    for target in chosen:
        if target.sites:
            amount = targets.sparsity_of(target.layers, spec)
            layers |= dict.fromkeys(target.layers, remove(small, target, amount))
            continue
        for name in target.layers:
            layers[name] = targets.sparsity_of([name], spec)
            saved += layers[name] * work.by_layer.get(name, 0)
            zeros += round(layers[name] * models.linear(denoiser, name).weight.numel())
    left = work if small is denoiser else count_flops(family, small, spec, configuration(source, "vae/config.json"))
    runs = targets.runs(spec, cuts)
    effort = effort_of(source, family, denoiser, spec, cuts, weights, work, left.total, count, calibrated)
    return Plan(
        layers,
        packages,
        spec.statistic,
        parameters,
        sum(p.numel() for p in small.parameters()) - zeros,
        work.total,
        left.total,
        work.attention,
        left.attention,
        left.total - round(saved),
        runs,
        runs * count * spec.sampling.steps * work.total,
        *in_reach,
        tree.parts_of(family, denoiser, chosen),
        memory,
        budget,
        fits,
        effort,
        minutes_of(effort, speed, source),
        speed,
    )


def remove(denoiser: nn.Module, target: Target, sparsity: float) -> float:
    """Take the last groups of a target's sites, for the sake of shapes; the share of their channels that went."""
    states: dict[str, State] = {name: surgery.state_of(models.linear(denoiser, name)) for name in target.touched}
    kept = [(s, torch.arange(s.groups - targets.removed_groups(s, sparsity))) for s in target.sites]
    heads = {site.owner: len(groups) for site, groups in kept if site.owner}
    surgery.install(denoiser, surgery.shrink(states, kept), heads)
    channels = sum(site.groups * site.size for site, _ in kept)
    return 1 - sum(len(groups) * site.size for site, groups in kept) / channels


def readable(size: int) -> str:
    """Bytes as KiB, MiB or GiB."""
    exponent = 1 if size < 2**20 else 2 if size < 2**30 else 3
    return f"{size / 1024**exponent:,.1f} {('KiB', 'MiB', 'GiB')[exponent - 1]}"


def describe(found: Plan, as_json: bool = False) -> str:
    """A plan for people, or for programs."""
    if as_json:
        return json.dumps(asdict(found), indent=1)
    width = max((len(name) for name in found.layers), default=5)
    lines = [f"{'layer':{width}}  package  sparsity"]
    for number, package in enumerate(found.packages, 1):
        lines += [f"{name:{width}}  {number:7}  {found.layers[name]:.4f}" for name in package.layers]
    lines.append("")
    for number, package in enumerate(found.packages, 1):
        size = f"{readable(package.statistics_bytes)} of {found.statistic}" if found.statistic else "no statistics"
        lines.append(f"package {number}: {len(package.layers)} layers, {size}")
    less = 1 - found.pruned_parameters / found.parameters
    lines += [
        "",
        *tree.describe(found.parts),
        f"{found.reach:.1%} of the denoiser's parameters are in layers that can be pruned",
        "",
        f"sampling runs over the calibration prompts: {found.sampling_runs}",
        f"parameters: {found.parameters:,} → {found.pruned_parameters:,} nonzero ({less:.1%} fewer)",
        f"FLOPs of one denoiser call: {found.flops / 1e9:,.2f} G → {found.pruned_flops / 1e9:,.2f} G "
        f"({1 - found.pruned_flops / found.flops:.1%} fewer); "
        f"{found.theoretical_flops / 1e9:,.2f} G if zeros were skipped",
        f"calibration: {found.calibration_flops / 1e15:,.3f} PFLOP of sampling",
        *describe_time(found),
        *describe_memory(found.memory),
        f"within {readable(found.budget)}: {found.fits}",
    ]
    return "\n".join(lines)


def describe_time(found: Plan) -> list[str]:
    """The work of the phases, and the minutes they take."""
    effort, minutes, rate = found.effort, found.minutes, found.rate
    phases = (
        ("encode", effort.encode, minutes.encode),
        ("sample", effort.sample, minutes.sample),
        ("statistics", effort.statistics, minutes.statistics),
        ("solve", effort.solve + effort.eliminate, minutes.solve),
    )
    lines = [f"{'phase':12}{'TFLOP':>14}{'minutes':>10}"]
    lines += [f"{name:12}{flops / rates.TERA:14,.2f}{time:10,.1f}" for name, flops, time in phases]
    lines.append(f"{'all':12}{sum(flops for _, flops, _ in phases) / rates.TERA:14,.2f}{minutes.total:10,.1f}")
    shares = ", ".join(f"{share:.0%} in {phase}" for phase, share in EFFICIENCY.items())
    lines.append(
        f"at {rate.name}: {rate.model / rates.TERA:,.3g} TFLOP/s in the model's dtype, {rate.single / rates.TERA:,.3g} "
        f"in float32, {rate.double / rates.TERA:,.3g} in float64 ({rate.origin}), of which {shares}; loading, saving, "
        "and everything that is not a matrix product come on top"
    )
    return lines


def describe_memory(memory: Memory) -> list[str]:
    """The moments, and what is estimated."""
    what = "GPU memory allocated" if memory.kind == "allocated" else "resident memory of the process"
    return [
        f"{what}, estimated: {readable(memory.loading)} loading, {readable(memory.encoding)} with the prompts' "
        f"encoders, {readable(memory.calibration)} calibrating, {readable(memory.solving)} solving, "
        f"{readable(memory.saving)} saving; at most {readable(memory.peak)}"
    ]
