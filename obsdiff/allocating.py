"""The sparsity of every layer: what the spec asks for, or what an allocation makes of the same total."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from obsdiff import models, registry, surgery, targets
from obsdiff.calibration.measuring import Measure
from obsdiff.spec import PruneSpec, stated
from obsdiff.targets import Target


def row_weights(spec: PruneSpec, measure: Measure | None) -> Callable[[str], Tensor | None]:
    """Layer → the weights of its rows' errors, if the spec asks for them."""
    if measure is None or measure.sensitivity is None or spec.weighed not in ("rows", "both"):
        return lambda layer: None
    return measure.sensitivity.row_weights


def allocate(
    denoiser: nn.Module, chosen: Sequence[Target], spec: PruneSpec, measure: Measure | None
) -> list[list[float]]:
    """The sparsity of every layer of every target (of a target's sites: one number)."""
    asked = [[targets.sparsity_of([name], spec) for name in target.layers] for target in chosen]
    for target, row in zip(chosen, asked, strict=True):
        if target.sites:
            row[:] = [targets.sparsity_of(target.layers, spec)]
    if spec.layer_sparsity:
        return asked
    entry = registry.load("obsdiff.allocations", stated(spec.allocation))
    kind = entry.TRAITS.statistic
    sums = measure.dense(targets.groups_of(chosen), kind) if kind and measure else None
    weigh, sensitivity = row_weights(spec, measure), measure.sensitivity if measure else None
    measures: list[list[float]] = []
    sizes: list[float] = []
    for target in chosen:
        found, counts = [], []
        for group in target.unit:
            device = models.linear(denoiser, group[0]).weight.device
            input = sums.pop(group).value(device, stated(spec.damping)) if sums else None
            for name in group:
                weight, rows = surgery.state_of(models.linear(denoiser, name)).weight, weigh(name)
                counts.append(float(weight.numel()))
                if input is None:
                    continue
                scaled = weight.float() if rows is None else weight.float() * rows.sqrt()[:, None]
                importance = 1.0 if sensitivity is None else sensitivity.importance(name, group)
                found.append(entry.measure(scaled, input, spec.amount, importance))
        if target.sites:
            found, counts = [torch.tensor(found).mean(dim=0).tolist()] if found else [], [sum(counts)]
        measures += found
        sizes += counts
    shares = entry.allocate(torch.tensor(measures).double(), torch.tensor(sizes).double(), spec.amount).tolist()
    return [[shares.pop(0) for _ in row] for row in asked]
