"""The algorithm, top to bottom (OBS-Diff, arXiv 2510.06751, algorithm 1).

For each module package: calibrate on the model as pruned so far, then prune the package's layers one by one, each from
its own statistic.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from obsdiff import models, registry, surgery, targets
from obsdiff.applying import prune_target
from obsdiff.calibration import measuring, sharing
from obsdiff.calibration.measuring import Measure
from obsdiff.calibration.statistics import Input
from obsdiff.checkpoints.progress import TRAJECTORY, Progress, held
from obsdiff.devices import reset_peak_memory, stated_precision
from obsdiff.packages import Group
from obsdiff.pipelines import guard
from obsdiff.pipelines.identity import Identity, identity_of
from obsdiff.pipelines.staging import Stage, staged
from obsdiff.report import Clock, Report, peak_memory
from obsdiff.spec import PruneSpec
from obsdiff.targets import Target


@stated_precision()
@torch.no_grad()
def prune(
    pipe: Any,
    spec: PruneSpec,
    progress: str | Path | None = None,
    base: Identity | None = None,
    calibration: str | Path | None = None,
) -> Report:
    """Prune a diffusers pipeline's denoiser in place.

    Args:
        pipe: a pipeline of one of the classes of obsdiff/models.
        spec: what to do; spec.prompts may be empty for methods that need no calibration.
        progress: a folder that keeps finished packages until the end; a run that was killed goes on after them and
            gives the same weights. Remove it when the result is saved.
        base: the pipeline's identity, if it is known (identity.identity_of_source); computed by default.
        calibration: a folder that calibrate() wrote; it is used in the place of sampling, and gives the same weights.

    Raises:
        SpecError: the pipeline is not supported or sequentially offloaded, the spec does not fit it, a calibrating
            method has no prompts, another run is writing to `progress`, or `calibration` is damaged or of another
            model, sampling or weighting.
        LayerError: a layer is not a plain linear layer with finite weights (see guard), does not fit the pattern, or
            has an input or a Hessian that cannot be used, by name.
    """
    guard.check(pipe)
    family = models.family_of(pipe)
    base = base or identity_of(pipe)
    shared = None if calibration is None else sharing.opened(Path(calibration), spec, base)
    with guard.eager(), staged(pipe) as stage, held(progress):
        return run(pipe, family, stage, spec, None if progress is None else Path(progress), base, shared)


def run(
    pipe: Any,
    family: ModuleType,
    stage: Stage,
    spec: PruneSpec,
    progress: Path | None,
    base: Identity,
    shared: sharing.Folder | None,
) -> Report:
    begun = time.perf_counter()
    method = registry.load("obsdiff.methods", spec.method)
    denoiser = models.denoiser_of(pipe)
    wanted = method.TRAITS.prunes and (spec.amount > 0 or spec.layer_sparsity)
    chosen = targets.find(family, denoiser, spec) if wanted else []
    cuts = targets.cut(denoiser, chosen, spec)
    report = Report(spec, base)
    report.reach, report.left_dense = targets.reach(family, denoiser)
    report.packages = [[name for target in package for name in target.layers] for package in cuts]
    clock = Clock(report.seconds, stage.device)
    reset_peak_memory(stage.device)
    saved, folder = Progress(progress, report), None if progress is None else progress / TRAJECTORY
    trajectory = None
    if spec.sequential:
        trajectory = shared.trajectory(spec, base) if shared else sharing.trajectory_of(spec, base, folder)
    amounts = saved.restore(denoiser, anew=trajectory is not None and not trajectory.complete)
    measure = None
    if spec.calibrates and saved.done < len(cuts):
        measure = measuring.begin(pipe, stage, spec, clock, trajectory, shared, folder)
    if shared:  # what it took to make is a part of what this run would take alone
        report.seconds["shared"] = shared.record["seconds"]
        report.peak_memory_bytes = max(report.peak_memory_bytes, shared.record["peak_memory_bytes"])
    stage.sampling()
    if amounts is None:
        with clock("allocate"):
            amounts = allocate(denoiser, chosen, spec, measure)
    if spec.resolved.structured:  # a sparsity that leaves nothing is an error now, not hours later
        for target, amount in zip(chosen, amounts, strict=True):
            for site in target.sites:
                targets.removed_groups(site, amount[0])
    share = dict(zip(chosen, amounts, strict=True))
    for number, package in enumerate(cuts, 1):
        if number <= saved.done:
            continue
        inputs: dict[Group, Input] = {}
        if measure and spec.statistic:
            with clock("calibrate"):
                sums = measure.package(number, package, f"{number}/{len(cuts)}")
            size = targets.package_bytes(denoiser, package, spec.statistic)
            report.statistics_bytes = max(report.statistics_bytes, size)
        with clock("solve"):
            for target in package:
                if measure and spec.statistic:
                    device = models.linear(denoiser, target.layers[0]).weight.device
                    inputs = {group: sums.pop(group).value(device, spec.damping) for group in target.unit}
                prune_target(denoiser, target, inputs, method, share[target], report)
        report.seconds["total"] = report.seconds.get("total", 0.0) + time.perf_counter() - begun
        begun = time.perf_counter()
        report.peak_memory_bytes = max(report.peak_memory_bytes, peak_memory(stage.device))
        saved.keep(denoiser, package, amounts)
    if measure:
        measure.close()
    surgery.record(denoiser, [vars(site) for site in report.sites])
    report.seconds["total"] = report.seconds.get("total", 0.0) + time.perf_counter() - begun
    report.peak_memory_bytes = max(report.peak_memory_bytes, peak_memory(stage.device))
    return report


def allocate(
    denoiser: nn.Module, chosen: Sequence[Target], spec: PruneSpec, measure: Measure | None
) -> list[list[float]]:
    """The sparsity of every layer of every target (of a site: one number)."""
    asked = [[spec_sparsity(target, name, spec) for name in items(target)] for target in chosen]
    entry = registry.load("obsdiff.allocations", spec.allocation)
    if entry.TRAITS.statistic is None or measure is None:
        return asked
    sums = measure.dense(targets.groups_of(chosen), entry.TRAITS.statistic)
    measures, sizes = [], []
    for target in chosen:
        found = []
        for group in target.unit:
            seen = sums.pop(group).value(models.linear(denoiser, group[0]).weight.device)
            for name in group:
                weight = models.linear(denoiser, name).weight.detach().float()
                found.append((entry.measure(weight, seen), weight.numel()))
        if target.sites:
            found = [(sum(m for m, _ in found) / len(found), sum(n for _, n in found))]
        measures += [m for m, _ in found]
        sizes += [float(n) for _, n in found]
    flat = entry.allocate(torch.tensor(measures).double(), torch.tensor(sizes).double(), spec.sparsity).tolist()
    return [[flat.pop(0) for _ in row] for row in asked]


def items(target: Target) -> list[str]:
    """Names of what has a sparsity of its own."""
    return [target.layers[0]] if target.sites else target.layers


def spec_sparsity(target: Target, name: str, spec: PruneSpec) -> float:
    return targets.sparsity_of(target.layers if target.sites else [name], spec)
