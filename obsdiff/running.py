"""One pruning run as the algorithm of obsdiff/pruning.py sees it: what is pruned, calibration, resuming, the record.

Clocks, peak memory and files are here, so that they are not there.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from obsdiff import models, registry, surgery, targets
from obsdiff.allocating import allocate, row_weights
from obsdiff.applying import Problem, prune_target
from obsdiff.calibration import measuring
from obsdiff.calibration.measuring import Measure, Sums
from obsdiff.calibration.refit import refit
from obsdiff.calibration.stored import Folder, trajectory_of
from obsdiff.checkpoints.progress import TRAJECTORY, Progress
from obsdiff.devices import reset_peak_memory
from obsdiff.given import Given
from obsdiff.pipelines.identity import Identity
from obsdiff.pipelines.staging import Stage
from obsdiff.report import Clock, Report, peak_memory
from obsdiff.spec import PruneSpec
from obsdiff.targets import Target

Package = list[Target]


class Run:
    """A run from its first to its last package; what an earlier process finished of it is taken up.

    Attributes:
        spec: of the run.
        report: what happened so far.
        packages: the targets, cut into module packages in order of execution.
    """

    def __init__(
        self,
        pipe: Any,
        stage: Stage,
        spec: PruneSpec,
        progress: Path | None,
        base: Identity,
        shared: Folder | None,
    ) -> None:
        self.pipe, self.stage, self.spec = pipe, stage, spec
        self.begun = time.perf_counter()
        self.family, self.denoiser = models.family_of(pipe), models.denoiser_of(pipe)
        self.method = registry.load("obsdiff.methods", spec.method)
        wanted = self.method.TRAITS.prunes and (spec.amount > 0 or spec.layer_sparsity)
        self.chosen = targets.find(self.family, self.denoiser, spec) if wanted else []
        self.given = Given(spec, self.family.TRAITS.denoiser) if self.method.TRAITS.given else None
        dense: dict[str, int] = {}
        if self.given:
            self.chosen, dense = targets.narrowed(self.chosen, self.given.changed(self.denoiser, self.chosen))
        self.packages: list[Package] = targets.cut(self.denoiser, self.chosen, spec)
        self.report = Report(spec, base)
        self.report.reach, self.report.left_dense = targets.reach(self.family, self.denoiser, spec.convolutions)
        self.report.left_dense |= dense
        self.report.packages = [[name for target in package for name in target.layers] for package in self.packages]
        self.clock = Clock(self.report.seconds, stage.device)
        reset_peak_memory(stage.device)
        self.saved = Progress(None if self.given else progress, self.report)  # given weights are not worth keeping
        self.measure = self.begin(base, shared, None if progress is None else progress / TRAJECTORY)
        if shared:  # what it took to make is a part of what this run would take alone
            self.report.seconds["shared"] = shared.record["seconds"]
            self.report.peak_memory_bytes = max(self.report.peak_memory_bytes, shared.record["peak_memory_bytes"])
        stage.sampling()
        self.sparsities = self.allocate()

    def begin(self, base: Identity, shared: Folder | None, folder: Path | None) -> Measure | None:
        """Get ready to calibrate on the dense model, then take up finished packages."""
        spec, trajectory = self.spec, None
        if not self.packages:
            self.allocated: list[list[float]] | None = []
            return None
        if spec.sequential:
            trajectory = shared.trajectory(spec, base) if shared else trajectory_of(spec, base, folder)
        anew = trajectory is not None and not trajectory.complete
        measure = None
        if spec.calibrates and (anew or spec.refit or not self.saved.complete(len(self.packages))):
            parts = (self.pipe, self.stage, spec, self.clock, trajectory, shared, folder, self.chosen)
            measure = measuring.begin(*parts)
        self.allocated = self.saved.restore(self.denoiser, anew)
        if trajectory and trajectory.spent and not shared and not self.saved.done:  # else the last package has it
            for name in ("sample", "total"):
                self.report.seconds[name] = self.report.seconds.get(name, 0.0) + trajectory.spent
            self.report.peak_memory_bytes = max(self.report.peak_memory_bytes, trajectory.peak)
        return measure

    def allocate(self) -> Mapping[Target, Sequence[float]]:
        """The sparsity of each layer of every target, or of a target's sites."""
        found = self.allocated
        if found is None:
            with self.clock("allocate"):
                found = self.allocated = allocate(self.denoiser, self.chosen, self.spec, self.measure)
        for target, shares in zip(self.chosen, found, strict=True):
            for site in target.sites:  # a sparsity that leaves nothing is an error now, not hours later
                targets.removed_groups(site, shares[0])
        return dict(zip(self.chosen, found, strict=True))

    def unfinished(self) -> Iterator[Package]:
        """The packages that are to be pruned; each is on disk when the next one is asked for."""
        for number, package in enumerate(self.packages, 1):
            if number <= self.saved.done:
                continue
            yield package
            self.lap()
            assert self.allocated is not None
            self.saved.keep(self.denoiser, package, self.allocated)

    def calibrate(self, package: Package) -> Sums | None:
        """Statistics of the package's inputs on the model as pruned so far; None if the method needs none."""
        if self.measure is None or self.spec.statistic is None:
            return None
        number, count = self.packages.index(package) + 1, len(self.packages)
        with self.clock("calibrate"):
            sums = self.measure.package(number, package, f"{number}/{count}")
        size = targets.package_bytes(self.denoiser, package, self.spec.statistic)
        self.report.statistics_bytes = max(self.report.statistics_bytes, size)
        return sums

    def solve(self, target: Target, statistics: Sums | None) -> None:
        """Prune a target and say in the report what happened."""
        with self.clock("solve"):
            inputs = {}
            if statistics is not None:
                device, damping = models.linear(self.denoiser, target.layers[0]).weight.device, self.spec.damping
                assert damping is not None
                inputs = {group: statistics.pop(group).value(device, damping) for group in target.unit}
            rows = row_weights(self.spec, self.measure)
            problem = Problem(self.spec, self.method, inputs, self.sparsities[target], rows, self.given)
            layers, sites = prune_target(self.denoiser, target, problem)
        self.report.layers += layers
        self.report.sites += sites

    def refit(self) -> None:
        """Fit the denoiser's last layer to the dense model's outputs, if the spec asks for it and there is one."""
        last = self.family.TRAITS.last
        if not (self.spec.refit and self.packages and last and isinstance(self.measure, measuring.Walked)):
            return
        assert self.measure.sensitivity is not None
        trajectory, outputs = self.measure.trajectory, self.measure.sensitivity.outputs
        with self.clock("refit"):
            refit(trajectory, outputs, self.denoiser, last, self.stage.device, self.spec.sampling.guidance_scale)
        self.report.refitted = [last]

    def lap(self) -> None:
        """Add the time since the last lap and the peak of memory to the report."""
        now = time.perf_counter()
        self.report.seconds["total"] = self.report.seconds.get("total", 0.0) + now - self.begun
        self.begun = now
        self.report.peak_memory_bytes = max(self.report.peak_memory_bytes, peak_memory(self.stage.device))

    def finish(self) -> Report:
        if self.measure:
            self.measure.close()
        surgery.record(self.denoiser, self.report.sites)
        self.lap()
        return self.report
