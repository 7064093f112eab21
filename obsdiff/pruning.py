"""The algorithm, top to bottom (OBS-Diff, arXiv 2510.06751, algorithm 1).

For each module package: sample the calibration prompts on the model as pruned so far, then prune the package's
layers one by one, each from its own statistic.
"""

import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff import models, obs, packages, registry
from obsdiff.calibration import Calibration, prompt_seed
from obsdiff.errors import LayerError
from obsdiff.packages import Group, Unit
from obsdiff.spec import PruneSpec
from obsdiff.statistics import Statistic


@dataclass
class LayerReport:
    """What happened to one linear layer."""

    name: str
    shape: tuple[int, int]
    removed: int
    """weights removed"""
    weight_error: float
    """‖ΔW‖² / ‖W‖²"""
    calibration_error: float | None = None
    """tr(ΔW H ΔWᵀ) / tr(W H Wᵀ); None where no Hessian was accumulated"""
    damping: float | None = None
    """of the factorisation, in units of mean(diag H)"""


@dataclass
class Report:
    """One pruning run: the spec, the dense weights' hash, every layer, and the cost."""

    spec: PruneSpec
    base: str
    """SHA-256 of the prunable dense weights"""
    layers: list[LayerReport] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """encode, calibrate, solve, total; wall-clock"""
    peak_memory_bytes: int = 0
    """largest resident set of the process, or peak allocated on the GPU"""
    statistics_bytes: int = 0
    """largest sum of one package's statistics"""

    @property
    def sparsity(self) -> float:
        """Removed weights over prunable weights."""
        total = sum(rows * columns for rows, columns in (layer.shape for layer in self.layers))
        return sum(layer.removed for layer in self.layers) / total if total else 0.0

    def as_dict(self) -> dict[str, Any]:
        record = asdict(self)
        record["spec"] = self.spec.canonical()
        return record | {"sparsity": self.sparsity}


def base_hash(denoiser: nn.Module, units: list[Unit]) -> str:
    """SHA-256 over names, shapes and float32 bytes of the prunable weights: which dense model this is."""
    digest = sha256()
    for name in packages.layers(units):
        weight = models.linear(denoiser, name).weight
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def prune(pipe: Any, spec: PruneSpec) -> Report:
    """Prune a diffusers pipeline's denoiser in place.

    Args:
        pipe: a pipeline of one of the classes of obsdiff/models.
        spec: what to do; spec.prompts may be empty for methods that need no calibration.

    Raises:
        SpecError: the pipeline is not supported, or a calibrating method has no prompts.
        LayerError: a layer's input or Hessian cannot be used, by name.
    """
    begun = time.perf_counter()
    family = models.family_of(pipe)
    method = registry.load("obsdiff.methods", spec.method)
    weighting = registry.load("obsdiff.weightings", spec.weighting if method.WEIGHTED else "uniform")
    denoiser = family.denoiser(pipe)
    units = family.units(denoiser)
    report = Report(spec, base_hash(denoiser, units))
    clock = Clock(report.seconds)
    if denoiser.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(denoiser.device)
    if spec.sparsity > 0:
        calibration = None
        if method.STATISTIC is not None:
            with clock("encode"):
                calibration = Calibration(pipe, spec, lambda t: weighting.alphas(t, spec.alpha_min, spec.alpha_max))
        cuts = packages.split(units, spec.packages if calibration else 1)
        for number, package in enumerate(cuts, 1):
            groups = [group for unit in package for group in unit]
            stats: dict[Group, Statistic] = {}
            if calibration:
                with clock("calibrate"):
                    what = f"calibrating package {number}/{len(cuts)}"
                    stats = calibration.statistics(denoiser, groups, method.STATISTIC, what)
            report.statistics_bytes = max(report.statistics_bytes, sum(s.bytes() for s in stats.values()))
            with clock("solve"):
                for group in groups:
                    statistic = stats[group].value() if group in stats else None
                    report.layers += prune_group(denoiser, group, statistic, method, spec)
    report.seconds["total"] = time.perf_counter() - begun
    report.peak_memory_bytes = peak_memory(denoiser.device)
    return report


def prune_group(
    denoiser: nn.Module, group: Group, statistic: Tensor | None, method: ModuleType, spec: PruneSpec
) -> Iterator[LayerReport]:
    """Prune the layers that share one input, in place; a Hessian is factored once for all of them."""
    pattern = registry.load("obsdiff.patterns", spec.pattern)
    try:
        factor = obs.factor(statistic, spec.damping) if method.COMPENSATES and statistic is not None else None
    except obs.FactorisationError as error:
        raise LayerError(f"{', '.join(group)}: {error}") from None

    def select(scores: Tensor, start: int = 0) -> Tensor:
        keep: Tensor = pattern.keep(scores, spec.sparsity, method.GROUP, start)
        return keep

    for name in group:
        parameter = models.linear(denoiser, name).weight
        dense = parameter.detach().to(torch.float32, copy=True)
        if factor:
            pruned, keep = obs.sweep(dense, factor, select, spec.block_size)
        else:
            generator = torch.Generator("cpu").manual_seed(prompt_seed(name, spec.seed))
            keep = select(method.score(dense, statistic, generator))
            pruned = dense.masked_fill(~keep, 0.0)
        parameter.copy_(pruned)
        stored = parameter.detach().float()
        layer = LayerReport(
            name,
            (dense.shape[0], dense.shape[1]),
            int((~keep).sum()),
            float((stored - dense).square().sum() / dense.square().sum()),
        )
        if factor and statistic is not None:
            layer.calibration_error = obs.layer_error(dense, stored, statistic)
            layer.damping = factor.damping
        yield layer


class Clock:
    """Adds a block's wall-clock seconds to a dict under a name."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    def __call__(self, name: str) -> "Clock":
        self.name = name
        return self

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time.perf_counter() - self.begun


def peak_memory(device: torch.device) -> int:
    """Bytes: peak allocated on a GPU, else the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
