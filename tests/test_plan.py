"""What a plan says of work, time and memory: against products that are really made, closed forms, and laws."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import SAMPLING, combinations, entries, spec_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from obsdiff import PruneSpec, Source, SpecError, methods, models, plan, registry, targets
from obsdiff.calibration.runs import Calibration
from obsdiff.models._tiny import LENGTH
from obsdiff.patterns import unstructured
from obsdiff.planning import rates
from obsdiff.planning.counting import work_of
from obsdiff.planning.effort import calls_of
from obsdiff.planning.formulas import elimination_flops, factor_flops, statistics_flops, sweep_flops
from obsdiff.planning.plan import Plan, describe
from obsdiff.solver import elimination, factors, obs

aten = torch.ops.aten
PRODUCTS = {aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm_, aten.addmv_, aten.mv}


class Made(TorchDispatchMode):
    """FLOPs of every matrix product, those in place included, which FlopCounterMode passes over."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in PRODUCTS:
            left, right = args[-2:]
            self.flops += 2 * left.numel() * (right.shape[-1] if right.dim() > 1 else 1)
        made = func(*args, **(kwargs or {}))
        if func._overloadpacket is aten.convolution:
            self.flops += 2 * made.numel() * args[1][0].numel()
        return made


def planned(folder: Path, spec: PruneSpec, **more: Any) -> Plan:
    source = {key: more.pop(key) for key in ("device", "dtype", "offload") if key in more}
    return plan(Source(str(folder), **source), spec, **more)


def name_of(family: ModuleType) -> str:
    return family.__name__.rpartition(".")[2]


@pytest.mark.parametrize("name", entries("obsdiff.models"))
def test_work_of_a_call_is_what_torch_counts(name):
    family = registry.load("obsdiff.models", name)
    denoiser = models.denoiser_of(family.tiny()).to("meta")
    arguments = family.example(denoiser, 16, 16, SAMPLING)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(**arguments)
    work = work_of(denoiser, arguments)
    assert work.total == counter.get_total_flops()
    assert work.total > sum(work.by_layer.values()) > 0 and 0 < work.attention < work.total
    for layer, rows in work.rows.items():
        assert work.by_layer[layer] == 2 * rows * models.linear(denoiser, layer).weight.numel()


@pytest.mark.parametrize("name", entries("obsdiff.models"))
@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_calibration_makes_the_products_that_are_planned(name, pattern, folders, monkeypatch):
    """Sampling and statistics of a real run, counted by torch while they happen."""
    family = registry.load("obsdiff.models", name)
    for module in (family, getattr(family, "sd", None)):  # XL's example is that of 1 and 2
        if hasattr(module, "CLIP_TOKENS"):
            monkeypatch.setattr(module, "CLIP_TOKENS", LENGTH)
    spec = spec_of("obs_diff", pattern=pattern, packages=1)
    found = planned(folders[name], spec)
    effort, pipe = found.effort, family.tiny()
    calibration, denoiser = Calibration(pipe, spec), models.denoiser_of(pipe)
    groups = [group for target in targets.find(family, denoiser, spec) for group in target.unit]
    with Made() as made:
        calibration.statistics(denoiser, groups, "hessian", "counted")
    calls = len(spec.prompts) * calls_of(Source(str(folders[name])), spec)
    assert effort.sample == found.flops * calls and effort.statistics > 0
    # a CPU's attention is one operation without products of its own
    assert made.flops + found.attention_flops * calls == effort.sample + effort.statistics


def test_statistics_are_half_a_full_product():
    """What block rows reach below the diagonal is little where there are many of them."""
    for columns in (1536, 6144):
        full = 2 * 100 * columns**2
        assert full / 2 < statistics_flops(columns, 100, "cpu") < 0.6 * full
        assert statistics_flops(columns, 100, "cpu") <= statistics_flops(columns, 100, "cuda") <= full
    assert statistics_flops(512, 7, "cpu") == 2 * 7 * (256 * 512 + 256 * 256)


def problem(rows: int, columns: int) -> tuple[torch.Tensor, factors.Factor]:
    x = torch.randn(2 * columns, columns)
    return torch.randn(rows, columns), factors.factor(x.T @ x)


def test_solver_makes_the_products_that_are_planned():
    weight, factor = problem(64, 512)
    with Made() as made:
        obs.sweep(weight, factor, lambda scores, start: unstructured.keep(scores, 0.5, "block", start))
    assert made.flops == pytest.approx(sweep_flops(64, 512), rel=0.01)
    for rows, columns, size, groups, count in ((96, 384, 16, 24, 12), (64, 640, 1, 640, 300)):
        weight, factor = problem(rows, columns)
        with Made() as made:
            elimination.eliminate([elimination.Problem(weight, factor)], size, groups, count)
        assert made.flops == pytest.approx(elimination_flops(rows, columns, size, count), rel=0.1)
    assert sum(factor_flops(3000)) == pytest.approx(2 / 3 * 3000**3)


@pytest.mark.usefixtures("counted_once")
@pytest.mark.parametrize("name", entries("obsdiff.models"))
def test_every_method_and_pattern_has_a_plan(name, folders):
    for method, pattern in combinations():
        traits = methods.traits(method)
        spec = spec_of(method, pattern=pattern)
        found = planned(folders[name], spec)
        effort, minutes = found.effort, found.minutes
        assert (effort.sample > 0) == (effort.encode > 0) == spec.calibrates
        assert (effort.statistics > 0) == (traits.statistic == "hessian") == (effort.solve > 0)
        assert (effort.eliminate > 0) == (traits.compensates and spec.resolved.structured)
        assert all(math.isfinite(m) and m >= 0 for m in vars(minutes).values())
        assert minutes.total == pytest.approx(sum(vars(minutes).values())) and "at cpu: " in describe(found)
        assert found.memory.peak >= found.memory.loading > 0


def test_work_grows_with_what_it_is_made_of(folders):
    folder = folders["sd3"]
    base = planned(folder, spec_of("obs_diff", packages=1)).effort
    more = planned(folder, spec_of("obs_diff", packages=3)).effort
    assert (more.sample, more.statistics, more.solve) == (3 * base.sample, base.statistics, base.solve)
    twice = planned(folder, spec_of("obs_diff", packages=1, prompts=(*"abcdef",))).effort
    assert (twice.sample, twice.statistics, twice.encode) == (2 * base.sample, 2 * base.statistics, 2 * base.encode)
    assert twice.solve == base.solve
    ready = planned(folder, spec_of("obs_diff", packages=3), calibrated=True).effort
    assert ready.sample == 2 * base.sample and 0 < ready.statistics < base.statistics
    owl = planned(folder, spec_of("obs_diff", packages=1, allocation="owl")).effort
    assert owl.sample == 2 * base.sample
    smaller = planned(folder, spec_of("obs_diff", packages=2, pattern="structured")).effort
    assert base.sample < smaller.sample < 2 * base.sample
    half = planned(folder, spec_of("obs_diff", packages="sequential")).effort
    walked = planned(folder, spec_of("obs_diff", packages="sequential", calibration_steps=0)).effort
    assert base.sample < half.sample < walked.sample and half.statistics < walked.statistics
    assert (walked.sample, walked.statistics, walked.solve) == (2 * base.sample, base.statistics, base.solve)
    rehearsed = planned(folder, spec_of("obs_diff", packages="sequential", pattern="structured")).effort
    assert smaller.sample < rehearsed.sample < 3 * base.sample


def test_memory_grows_with_what_it_is_made_of(folders):
    from dataclasses import replace

    def peaks(device: str = "cuda", dtype: str = "float32", offload: str = "none", **more: Any):
        batch = replace(SAMPLING, batch_size=more.pop("batch", 2))
        spec = spec_of(**({"method": "obs_diff", "packages": 1, "sampling": batch} | more))
        return planned(folders["flux"], spec, device=device, dtype=dtype, offload=offload).memory

    base = peaks()
    assert peaks(batch=8).calibration > base.calibration
    assert peaks(packages="unit").calibration < base.calibration and peaks(packages="unit").solving < base.solving
    assert peaks(offload_statistics=True).calibration < base.calibration
    assert peaks(dtype="bfloat16").encoding == base.encoding / 2 and peaks(dtype="bfloat16").solving < base.solving
    assert peaks(offload="model").encoding < base.encoding and peaks(offload="model").loading == 0
    assert peaks(pattern="structured").solving > peaks(pattern="structured", method="magnitude").solving
    few, many = (peaks(device="cpu", packages="sequential", trajectory_memory=m) for m in ("0GiB", "8GiB"))
    assert 0 < many.calibration - few.calibration < 2**30 and few.saving == many.saving
    cpu = peaks(device="cpu")
    assert cpu.kind == "resident" and base.kind == "allocated"
    for moment in ("encoding", "calibration", "solving", "loading", "saving"):
        assert getattr(cpu, moment) > getattr(base, moment)
    assert cpu.saving > cpu.loading  # new weights beside the mapped old ones


def test_rates(folders):
    spec, folder = spec_of("obs_diff", packages=1), folders["sd3"]
    slow, fast = (planned(folder, spec, rate=text) for text in ("2TFLOPS", "4 tflop/s"))
    for phase in ("encode", "sample", "statistics"):
        assert getattr(slow.minutes, phase) == pytest.approx(2 * getattr(fast.minutes, phase))
    assert fast.minutes.solve < slow.minutes.solve < 2 * fast.minutes.solve
    assert planned(folder, spec).rate.name == "cpu" and planned(folder, spec, device="cuda").rate.name == "a100"
    for name in rates.DEVICES:
        found = rates.rate_of(name.upper(), "bfloat16", "cuda")
        assert found.model == found.half >= found.single >= found.double > 0 and found.origin
        assert rates.rate_of(name, "float32", "cpu").model == found.single
    here = rates.rate_of("here", "float32", "cpu")
    assert here.model == here.single > 1e8 and here.double > 1e8 and "threads: " in here.origin
    for wrong in ("fast", "0", "-3TFLOPS", "300GB", ""):
        with pytest.raises(SpecError, match=r"^rate: '.*300TFLOPS.*a100"):
            planned(folder, spec, rate=wrong)


def test_samplers_that_call_twice_are_counted(folders):
    from dataclasses import replace

    heun = spec_of("obs_diff", sampling=replace(SAMPLING, steps=5, scheduler="heun"))
    assert calls_of(Source(str(folders["sd3"])), heun) == 9
    assert calls_of(Source(str(folders["sd"])), spec_of("obs_diff")) == SAMPLING.steps + 1  # its own one is PNDM
    euler = spec_of("obs_diff", sampling=replace(SAMPLING, steps=9, scheduler="euler"))
    assert planned(folders["sd3"], heun).effort.sample == planned(folders["sd3"], euler).effort.sample
