"""How much work a pruning run is, phase by phase, and how long it takes a device of a stated rate.

What the phases' FLOPs are made of is in formulas.py.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from obsdiff import allocations, models
from obsdiff.errors import SpecError
from obsdiff.packages import Group
from obsdiff.pipelines.loading import configuration
from obsdiff.planning.counting import Work
from obsdiff.planning.formulas import solver_flops, statistics_flops
from obsdiff.planning.rates import Rate
from obsdiff.source import Source
from obsdiff.spec import PruneSpec, stated
from obsdiff.targets import Target

EFFICIENCY = {"encode": 0.5, "sample": 0.5, "statistics": 0.5, "solve": 0.2, "eliminate": 0.2}
"""share of a device's rate that a phase gets; see benchmarks/real_size.md"""
LAUNCH = {"cpu": 4e-6, "cuda": 1e-5}
"""seconds of an operation too small to count"""
BACKWARD = 4
"""calls that a call with its backward pass is as much work as, its activations computed twice"""
CALLS = {"heun": (2, -1), "pndm": (1, 1)}
"""sampler → calls of the denoiser a step, and beyond that, where it is not one each"""


@dataclass(frozen=True)
class Effort:
    """FLOPs of a run.

    Attributes:
        encode, sample, statistics, solve, eliminate: of the phases.
        solve_double: what of `solve` is in float64; all of `eliminate` is.
        operations: of the solver that wait for each other and are small, however fast the device.
    """

    encode: int
    sample: int
    statistics: int
    solve: int
    solve_double: int
    eliminate: int
    operations: int


@dataclass(frozen=True)
class Minutes:
    """How long the phases take; all of the solver's are in `solve`."""

    encode: float
    sample: float
    statistics: float
    solve: float

    @property
    def total(self) -> float:
        return self.encode + self.sample + self.statistics + self.solve


def calls_of(source: Source, spec: PruneSpec) -> int:
    """Calls of the denoiser in one sampling run, guided ones counted once; one a step of an unknown sampler."""
    name = spec.sampling.scheduler
    if name is None:
        with suppress(SpecError):
            own = configuration(source, "scheduler/scheduler_config.json").get("_class_name", "")
            name = next((known for known in CALLS if known in str(own).lower()), None)
    each, more = CALLS.get(str(name), (1, 0))
    return each * spec.sampling.steps + more


def encode_flops(source: Source, family: Any, spec: PruneSpec, weights: Mapping[str, int], batch: int) -> int:
    """Of a prompt's texts.

    Args:
        weights: bytes of the components.
        batch: examples that a prompt makes in a call of the denoiser: 2 where it is guided.
    """
    total = 0
    for name, size in weights.items():
        if "text_encoder" not in name:
            continue
        config = configuration(source, f"{name}/config.json")
        width = config.get("hidden_size", config.get("d_model", 0))
        parameters = size // source.bytes - config.get("vocab_size", 0) * width
        given = spec.sampling.max_sequence_length
        tokens = config.get("max_position_embeddings") or (getattr(family, "T5_TOKENS", 77) if given is None else given)
        total += 2 * max(parameters, 0) * tokens * batch
    return total


def effort_of(
    source: Source,
    family: Any,
    denoiser: nn.Module,
    spec: PruneSpec,
    cuts: Sequence[Sequence[Target]],
    weights: Mapping[str, int],
    work: Work,
    left: int,
    prompts: int,
    shared: bool = False,
) -> Effort:
    """The work of a whole run.

    Args:
        denoiser: dense, on the meta device.
        cuts: the packages.
        weights: bytes of the components.
        work: of one call.
        left: FLOPs of one call of the pruned denoiser.
        prompts: how many calibrate.
        shared: the dense model's statistics are at hand (`obsdiff calibrate`): the first package is not sampled.
    """
    device = "cuda" if source.device.startswith("cuda") else "cpu"
    calls = prompts * calls_of(source, spec)
    allocated = allocations.traits(stated(spec.allocation)).statistic if spec.calibrates else None
    # of sequential calibration, what of all calls the walk takes
    part = min(1.0, (spec.calibration_steps or spec.sampling.steps) / spec.sampling.steps) if spec.sequential else 1.0
    groups: list[Group] = [group for cut in cuts for target in cut for group in target.unit]
    sampled = statistics = 0
    if spec.statistic:
        begin = 1 if shared and not spec.sequential else 0
        sampled = sum(work.total - (work.total - left) * i // len(cuts) for i in range(begin, len(cuts)))
        if spec.sequential:  # the dense model once, then the walk, which rehearses a site up to its consumers
            sites = [target for cut in cuts for target in cut if target.sites]
            again = sum(work.by_layer.get(name, 0) for t in sites for name in t.touched if name not in t.layers)
            again += work.attention if any(site.owner for target in sites for site in target.sites) else 0
            sampled = work.total + int(part * (left + again))
            sampled += int(part * BACKWARD * work.total) if spec.weighed != "none" else 0
            sampled += int(part * left) if spec.refit else 0
        counted = [group for cut in cuts[begin:] for target in cut for group in target.unit]
        if spec.statistic == "hessian":
            sizes = [(models.shape(denoiser, g[0])[1], work.rows.get(g[0], 0)) for g in counted]
            statistics = int(part * sum(statistics_flops(columns, rows, device) for columns, rows in sizes))
    if allocated and not shared:
        sampled += int(part * work.total)
    if allocated == "hessian":
        statistics *= 2
    solver = [solver_flops(denoiser, target, spec, source.dtype) for cut in cuts for target in cut]
    solve, double, eliminate, operations = (sum(part) for part in zip(*solver, strict=True)) if groups else (0,) * 4
    sampling = sampled > 0
    encode = encode_flops(source, family, spec, weights, work.batch) if work.encode is None else work.encode
    return Effort(
        encode * prompts * sampling,
        sampled * calls,
        statistics * calls,
        solve,
        double,
        eliminate,
        operations,
    )


def minutes_of(effort: Effort, rate: Rate, source: Source) -> Minutes:
    """How long it takes, at the shares of the rate that phases get."""
    cuda = source.device.startswith("cuda")
    exact = rate.half if cuda and source.dtype != "float32" else rate.single
    single = (effort.solve - effort.solve_double) / rate.single
    solve = (single + effort.solve_double / rate.double) / EFFICIENCY["solve"]
    solve += effort.eliminate / rate.double / EFFICIENCY["eliminate"]
    solve += effort.operations * LAUNCH["cuda" if cuda else "cpu"]
    seconds = (
        effort.encode / rate.model / EFFICIENCY["encode"],
        effort.sample / rate.model / EFFICIENCY["sample"],
        effort.statistics / exact / EFFICIENCY["statistics"],
        solve,
    )
    return Minutes(*(s / 60 for s in seconds))
