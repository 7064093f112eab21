"""Where a run's statistics come from: sampling runs, one cached trajectory, or a folder that `calibrate` wrote.

A Measure is asked for the dense model's statistics, where an allocation wants them, and then for one package after the
other, each of which is pruned before the next is asked for.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from obsdiff import models
from obsdiff.calibration import sensitivity
from obsdiff.calibration.runs import Calibration, alphas_of
from obsdiff.calibration.sensitivity import Sensitivity
from obsdiff.calibration.sharing import encoded
from obsdiff.calibration.stops import Repeated
from obsdiff.calibration.stored import Folder, Stored
from obsdiff.calibration.trajectory import Trajectory
from obsdiff.calibration.walking import Walk
from obsdiff.packages import Group
from obsdiff.pipelines.staging import Stage
from obsdiff.report import Clock
from obsdiff.solver.statistics import Statistic
from obsdiff.spec import PruneSpec
from obsdiff.targets import Target, groups_of


class Sums(Protocol):
    """Statistics of groups, each given out once."""

    def pop(self, group: Group) -> Statistic: ...


class Measure(Protocol):
    sensitivity: Sensitivity | None

    def dense(self, groups: Sequence[Group], kind: str) -> Sums:
        """Of the dense model, asked for before any package; groups are to be popped in their order."""

    def package(self, number: int, package: Sequence[Target], title: str) -> Sums:
        """Of the model as pruned so far.

        Args:
            number: from 1 on.
            title: the package in words, as `2/4`.
        """

    def close(self) -> None: ...


class Sampled:
    """A sampling run of all prompts per package."""

    sensitivity: Sensitivity | None = None

    def __init__(self, denoiser: nn.Module, spec: PruneSpec, calibration: Calibration) -> None:
        self.denoiser, self.spec, self.calibration = denoiser, spec, calibration

    def dense(self, groups: Sequence[Group], kind: str) -> Sums:
        return self.calibration.statistics(self.denoiser, groups, kind, "measuring outliers")

    def package(self, number: int, package: Sequence[Target], title: str) -> Sums:
        assert self.spec.statistic is not None
        what = f"calibrating package {title}"
        return self.calibration.statistics(self.denoiser, groups_of(package), self.spec.statistic, what)

    def close(self) -> None:
        pass


class Walked:
    """packages: sequential."""

    def __init__(
        self,
        denoiser: nn.Module,
        spec: PruneSpec,
        trajectory: Trajectory,
        device: torch.device,
        folder: Path | None,
        sensitivity: Sensitivity | None,
        repeated: Repeated,
    ) -> None:
        self.denoiser, self.spec, self.trajectory, self.device = denoiser, spec, trajectory, device
        self.folder, self.sensitivity, self.repeated = folder, sensitivity, repeated
        self.alphas = alphas_of(spec)(trajectory.steps)
        self.walk: Walk | None = None
        self.pruning: Walk | None = None

    def dense(self, groups: Sequence[Group], kind: str) -> Sums:
        if kind == "moments" and self.spec.weighed not in ("tokens", "both"):
            return self.trajectory.statistics(self.denoiser, groups, kind, self.alphas, self.device)
        return Passing(self.begin(), kind)

    def package(self, number: int, package: Sequence[Target], title: str) -> Sums:
        assert self.spec.statistic is not None
        walk = self.pruning = self.pruning or self.begin()
        (target,) = package
        return walk.statistics(target, self.spec.statistic)

    def begin(self) -> Walk:
        """All calls at their start; those of the walk before end where they are."""
        self.close()
        tokens = self.sensitivity if self.spec.weighed in ("tokens", "both") else None
        parts = (self.trajectory, self.denoiser, self.alphas, self.device, self.folder, tokens, self.repeated)
        self.walk = Walk(*parts)
        return self.walk

    def close(self) -> None:
        if self.walk is not None:
            self.walk.close()


class Passing:
    """Statistics of the dense model, one group at a time, so that no two of them are in memory."""

    def __init__(self, walk: Walk, kind: str) -> None:
        self.walk, self.kind = walk, kind

    def pop(self, group: Group) -> Statistic:
        return self.walk.statistics(Target((group,)), self.kind)[group]


class Shared:
    """The dense model's statistics from a folder; packages after the first are sampled.

    Args:
        sampled: makes what samples them.
    """

    sensitivity: Sensitivity | None = None

    def __init__(self, denoiser: nn.Module, spec: PruneSpec, folder: Folder, sampled: Callable[[], Sampled]) -> None:
        self.denoiser, self.spec, self.folder, self.sampled = denoiser, spec, folder, sampled
        self.later: Sampled | None = None

    def dense(self, groups: Sequence[Group], kind: str) -> Sums:
        return Stored(self.folder, self.denoiser, self.spec, kind)

    def package(self, number: int, package: Sequence[Target], title: str) -> Sums:
        assert self.spec.statistic is not None
        if number == 1:
            return self.dense(groups_of(package), self.spec.statistic)
        self.later = self.later or self.sampled()
        return self.later.package(number, package, title)

    def close(self) -> None:
        pass


def begin(
    pipe: Any,
    stage: Stage,
    spec: PruneSpec,
    clock: Clock,
    trajectory: Trajectory | None,
    shared: Folder | None,
    folder: Path | None,
    chosen: Sequence[Target],
) -> Measure:
    """Get ready to measure: prompts encoded, the trajectory sampled, sensitivities measured, as far as they are needed.

    The denoiser is still the dense one.

    Args:
        trajectory: of packages: sequential; what is missing in it is sampled.
        shared: a checked calibration.
        folder: for files of calls that wait.
        chosen: all targets.
    """
    denoiser = models.denoiser_of(pipe)

    def sampled() -> Sampled:
        with clock("encode"):
            calibration = encoded(pipe, stage, spec)
        return Sampled(denoiser, spec, calibration)

    if trajectory is not None:
        if not trajectory.complete:
            calibration = sampled().calibration
            with clock("sample"):
                trajectory.record(calibration, denoiser)
        found = dense_pass(pipe, stage, spec, clock, trajectory, chosen)
        repeated = getattr(models.family_of(pipe), "repeated", {})
        return Walked(denoiser, spec, trajectory, stage.device, folder, found, repeated)
    return Shared(denoiser, spec, shared, sampled) if shared else sampled()


def dense_pass(
    pipe: Any, stage: Stage, spec: PruneSpec, clock: Clock, trajectory: Trajectory, chosen: Sequence[Target]
) -> Sensitivity | None:
    """What the spec asks for of the dense model's calls: sensitivities, outputs of the layer that is refitted."""
    last = models.family_of(pipe).TRAITS.last if spec.refit else None
    if spec.weighed == "none" and last is None:
        return None
    denoiser = models.denoiser_of(pipe)
    groups = groups_of(chosen) if spec.weighed != "none" else []
    known = models.name_of(models.family_of(pipe)) != models.AUTO
    calls, guidance = trajectory.calls(), spec.sampling.guidance_scale if known else None
    stage.sampling()
    with clock("sensitivities"):
        parts = (trajectory, calls, denoiser, groups, stage.device, guidance, spec.seed, last, spec.token_power)
        return sensitivity.measure(*parts)
