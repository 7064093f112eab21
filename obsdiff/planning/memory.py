"""How much memory a pruning run takes, estimated from configurations alone, and what to change to fit.

Moments: loading, the prompts encoded, the denoiser sampling while statistics are summed up, a layer solved, the result
saved. What a peak is depends on the device:

    cuda  what torch's allocator has given out (max_memory_allocated); the CUDA context, some 0.5 GiB, is beside it
    cpu   the resident set of the process (VmHWM): libraries, and weights in files that are mapped into memory. Pages of
          a file stay in it when a layer gets new weights, so every pruned layer is there twice at the end.

Weights and statistics are exact; buffers of the solver are counted, those of the sampling a rule of thumb. The peaks
of real runs are in benchmarks/real_size.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from obsdiff import matrices, models, targets
from obsdiff.errors import SpecError
from obsdiff.matrices import Layer
from obsdiff.packages import GIB, bytes_of
from obsdiff.pipelines import components
from obsdiff.pipelines.loading import configuration
from obsdiff.pipelines.sources import INDEX, shipped
from obsdiff.planning.counting import Work
from obsdiff.solver import elimination
from obsdiff.source import Source
from obsdiff.spec import PruneSpec
from obsdiff.targets import Target

LIBRARIES = 1 * GIB
"""resident set of a process that has loaded Python, torch, diffusers and transformers (0.85 GiB); what malloc keeps"""
COPIES = 3
"""tensors as large as the widest layer's input and output that are alive at once in a call"""
FACTORED = 3
"""float32 matrices of a Hessian's size while it is factored, beside it (factors.factor)"""
SWEPT = 19
"""bytes a weight while a layer is swept and its error told: float32 of dense, moved, pruned, difference; two masks"""
SCORED = 26
"""bytes a weight while scores are ranked: float32 of dense, scores and pruned, indices of the ranking, masks"""
SOLVED, SQUARES = 40, 4
"""of ADMM and the re-solve: bytes a weight, and matrices of the Hessian's size"""
BACKWARD = 8
"""of a pass with gradients and checkpointing, in copies of the widest activation"""
WAITING = 1.5
"""numbers that a stopped call keeps, over those of the widest layer"""


@dataclass(frozen=True)
class Memory:
    """Bytes at each moment, of what `kind` says."""

    encoding: int
    calibration: int
    solving: int
    loading: int
    saving: int
    kind: str
    """`allocated` on a GPU, the process's `resident` set on a CPU"""

    @property
    def peak(self) -> int:
        return max(self.encoding, self.calibration, self.solving, self.loading, self.saving)


def component_bytes(source: Source) -> dict[str, int]:
    """Bytes of every component whose configuration is at hand, in the source's dtype."""
    known = shipped(source).get("parameters")
    if known is not None:
        return {name: source.bytes * count for name, count in known.items() if name not in source.without}
    return counted_bytes(source)


def counted_bytes(source: Source) -> dict[str, int]:
    """component_bytes() of the networks made on the meta device, whatever is known of them."""
    found = {}
    for name, (library, kind) in components.components(configuration(source, INDEX)).items():
        if library not in ("diffusers", "transformers") or name in source.without:
            continue
        cls: Any = components.class_of(name, library, kind)
        if not issubclass(cls, nn.Module):
            continue
        config = configuration(source, f"{name}/config.json")
        components.check_kind(Path(source.model, name), cls, config)
        with components.explained(name, Path(source.model)), torch.device("meta"):
            made = cls.from_config(config) if components.is_diffusers(cls) else cls(cls.config_class(**config))
        found[name] = source.bytes * sum(p.numel() for p in made.parameters())
    return found


def estimate(
    source: Source,
    spec: PruneSpec,
    weights: Mapping[str, int],
    denoiser: nn.Module,
    cuts: Sequence[Sequence[Target]],
    work: Work,
    prompts: int,
) -> Memory:
    """The memory of a run.

    Args:
        weights: of component_bytes().
        denoiser: dense, on the meta device.
        cuts: the packages.
        work: of one call for one prompt.
        prompts: how many calibrate.
    """
    cuda = source.device.startswith("cuda")
    own = weights[next(name for name in ("transformer", "unet") if name in weights)]
    encoders = sum(size for name, size in weights.items() if "encoder" in name)
    everything = sum(weights.values())
    resident = 0 if cuda else LIBRARIES + everything
    sampling = activations(source, spec, denoiser, cuts, work)
    if cuda:
        loading = everything if source.offload == "none" else 0
        encoding = max(loading, encoders)
        loaded = own
    else:
        loading = encoding = loaded = resident
    calibration, solving = loaded, loaded
    replaced = 0  # by new weights while the mapped file keeps the old ones
    for package in cuts:
        statistics = targets.package_bytes(denoiser, package, spec.statistic)
        if cuda and spec.offload_statistics:
            statistics = 0
        waiting = 0 if cuda else waiting_bytes(source, spec, work, prompts)
        calibration = max(calibration, loaded + replaced + statistics + sampling + waiting)
        for target, space in zip(package, workspaces(source, spec, denoiser, package), strict=True):
            solving = max(solving, loaded + replaced + statistics + space + waiting)
            if not (cuda and spec.offload_statistics):
                statistics -= targets.unit_bytes(denoiser, target, spec.statistic)
            replaced += 0 if cuda else source.bytes * left_after(denoiser, target, spec)
    packed = 0 if cuda else packed_bytes(source, spec, denoiser, cuts)
    return Memory(
        encoding, calibration, solving, loading, loaded + replaced + packed, "allocated" if cuda else "resident"
    )


def activations(
    source: Source, spec: PruneSpec, denoiser: nn.Module, cuts: Sequence[Sequence[Target]], work: Work
) -> int:
    """Bytes of a call for a batch, and of the float32 copy of an input whose products are summed up."""
    batch = spec.sampling.batch_size
    groups = [group[0] for package in cuts for target in package for group in target.unit] if spec.statistic else []
    inputs = [work.rows.get(name, 0) * models.shape(denoiser, name)[1] for name in groups]
    copied = 4 * max(inputs, default=0) if spec.statistic and not exact_halves(source) else 0
    copies = BACKWARD if spec.sequential and spec.weighed != "none" else COPIES
    return batch * (copies * work.widest * source.bytes + copied)


def exact_halves(source: Source) -> bool:
    """Whether products of inputs are summed up without a float32 copy of them (products.way)."""
    return source.device.startswith("cuda") and source.dtype != "float32"


def waiting_bytes(source: Source, spec: PruneSpec, work: Work, prompts: int) -> int:
    """Host memory of the calls that wait in `packages: sequential`, within the budget that is set for it."""
    if not spec.sequential:
        return 0
    steps = min(spec.calibration_steps or spec.sampling.steps, spec.sampling.steps)
    return min(bytes_of(spec.trajectory_memory), int(prompts * steps * WAITING * work.widest * source.bytes))


def workspaces(source: Source, spec: PruneSpec, denoiser: nn.Module, package: Sequence[Target]) -> Iterator[int]:
    """Bytes that solving each target takes beside the weights and the statistics that still wait."""
    for target in package:
        layers = {name: models.linear(denoiser, name) for name in target.touched}
        widths = [matrices.shape(layers[group[0]])[1] for group in target.unit]
        hessians = [4 * width**2 for width in widths] if spec.statistic == "hessian" else []
        spread = 2 if spec.bias else 1  # the covariance beside the Hessian
        inputs, largest = spread * sum(hessians), max(hessians, default=0)
        numbers = max((layer.weight.numel() for name, layer in layers.items() if name in target.layers), default=0)
        factors = sum(hessians)  # one each stays, beside two more while it is made
        solver = SWEPT * numbers if spec.traits.compensates else SCORED * numbers
        if spec.traits.compensates and (spec.chosen_solver != "sweep" or spec.resolve):
            solver = max(solver, SOLVED * numbers + SQUARES * largest)
        if target.sites:
            solver = 12 * sum(layers[name].weight.numel() for name in target.layers)
            if spec.traits.compensates:
                solver += sum(eliminated_bytes(layers[name], 2 * numbers) for name in target.layers)
        yield inputs + factors + max((FACTORED - 1) * largest, solver)


def eliminated_bytes(layer: Layer, moved: int) -> int:
    """Bytes of a problem of elimination.eliminate(): H⁻¹ and W in float64, W once more, the rows of a block."""
    rows, columns = matrices.shape(layer)
    return 8 * (columns**2 + rows * columns + elimination.BLOCK * (rows + columns)) + 4 * moved


def left_after(denoiser: nn.Module, target: Target, spec: PruneSpec) -> int:
    """Numbers in the new weights of a target's layers."""
    if not target.sites:
        return sum(models.linear(denoiser, name).weight.numel() for name in target.layers)
    share = targets.sparsity_of(target.layers, spec)
    return sum(round((1 - share) * models.linear(denoiser, name).weight.numel()) for name in target.touched)


def packed_bytes(source: Source, spec: PruneSpec, denoiser: nn.Module, cuts: Sequence[Sequence[Target]]) -> int:
    """Of a checkpoint's tensors while they are gathered: values and a bit a weight; small weights are as they are."""
    total = 0
    for target in (t for package in cuts for t in package if not t.sites):
        for name in target.layers:
            numbers = models.linear(denoiser, name).weight.numel()
            total += round((1 - targets.sparsity_of([name], spec)) * numbers) * source.bytes + numbers // 8
    return total


def ways(source: Source, spec: PruneSpec) -> list[tuple[str, Source, PruneSpec]]:
    """What may be changed to need less, the mildest first: words, source, spec."""
    # sequential calibration holds the statistic of one input at a time, which no packages make smaller
    small, packages = (spec, "") if spec.sequential else (replace(spec, packages="2GiB"), "--packages 2GiB")
    if not source.device.startswith("cuda"):
        return [("as it is", source, spec), *([(f"with {packages}", source, small)] if packages else [])]
    away = replace(source, offload="model") if source.offload == "none" else source
    offload = "" if away is source else "--offload model"
    main = replace(small, offload_statistics=True)
    options = [
        (offload, away, spec),
        (f"{offload} {packages}", away, small),
        (f"{offload} {packages} --offload-statistics", away, main),
    ]
    told = {" ".join(words.split()): (where, changed) for words, where, changed in options}
    return [("as it is", source, spec), *((f"with {words}", *what) for words, what in told.items() if words)]


def fitting(
    budget: int,
    source: Source,
    spec: PruneSpec,
    weights: Mapping[str, int],
    denoiser: nn.Module,
    chosen: Sequence[Target],
    work: Work,
    prompts: int,
) -> str:
    """The mildest way to run within `budget` bytes, in words; 'not at all' where there is none."""
    for words, where, changed in ways(source, spec):
        try:
            cuts = targets.cut(denoiser, chosen, changed)
        except SpecError:
            continue
        if estimate(where, changed, weights, denoiser, cuts, work, prompts).peak <= budget:
            return words
    return "not at all"
