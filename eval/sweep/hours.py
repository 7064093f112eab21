"""How long a sweep takes a device, from configurations alone: pruning as `obsdiff plan` has it, and the images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tabulate import tabulate

from eval.sweep.calibrations import Calibration, calibration_of
from eval.sweep.cells import Cell
from eval.sweep.config import Sweep, read_sweep
from eval.sweep.overrides import sampling_of
from eval.sweep.specs import spec_of
from obsdiff.planning import plan as plans
from obsdiff.planning import rates
from obsdiff.planning.effort import EFFICIENCY, calls_of
from obsdiff.source import Source
from obsdiff.spec import PruneSpec

HEAD = ["model", "cells", "prunings", "pruning, h", "images", "images, h", "all, h"]
LEFT_OUT = (
    "Left out: loading, the VAE, metrics, latency, and what else is no product of matrices. A device gets "
    f"{EFFICIENCY['sample']:.0%} of its rate, as in `obsdiff plan`."
)
DENSE = PruneSpec(method="dense", sparsity=0.0)


@dataclass
class Hours:
    """Of one model's cells.

    Attributes:
        prunings: runs; cells that differ only in the sampling of their use share one.
        pruning, drawing: hours.
    """

    cells: int = 0
    prunings: int = 0
    pruning: float = 0.0
    images: int = 0
    drawing: float = 0.0


def hours_of(sweep: Sweep, config: Mapping[str, Any], rate: str) -> dict[str, Hours]:
    """Model → how long its cells take.

    Args:
        rate: as of `obsdiff plan`.

    Raises:
        SpecError: no configuration of a model is known here, or the rate is not one.
    """
    found: dict[str, Hours] = {}
    seen: set[Calibration] = set()
    known: dict[tuple[Any, ...], plans.Plan] = {}

    def planned(cell: Cell, spec: PruneSpec, calibrated: bool = False) -> plans.Plan:
        if not spec.resolved.structured and spec.resolved.sparsity is None and spec.amount:
            spec = replace(spec, sparsity=0.5)  # nothing of a mask's cost depends on how many weights are zero
        model = sweep.models[cell.model]
        count = (model["calibration"] | sweep.calibration[cell.calibration])["count"]
        key = (cell.model, repr(spec), count, calibrated)
        if key not in known:
            known[key] = plans.plan(Source(**model["source"]), spec, count, rate=rate, calibrated=calibrated)
        return known[key]

    for cell in dict.fromkeys(cell.pruned_as() for cell in sweep.cells):
        hours = found.setdefault(cell.model, Hours())
        changes = sweep.sampling[cell.sampling], sweep.calibration[cell.calibration].get("sampling", {})
        spec = replace(spec_of(cell, sweep, config), sampling=sampling_of(sweep.models[cell.model], *changes))
        shared = calibration_of(cell, spec)
        hours.prunings += bool(spec.amount)
        hours.pruning += planned(cell, spec, shared in seen).minutes.total / 60
        seen |= {shared} if shared else set()
    for cell in sweep.cells:
        hours, spec = found[cell.model], spec_of(cell, sweep, config)
        drawn = spec if spec.resolved.structured else DENSE  # zeros are multiplied, too
        used = replace(drawn, sampling=sampling_of(sweep.models[cell.model], sweep.sampling[cell.sampling]))
        made = planned(cell, used)
        model = sweep.models[cell.model]
        calls, count = calls_of(Source(**model["source"]), used), model["evaluation"]["count"]
        hours.cells += 1
        hours.images += count
        hours.drawing += count * calls * made.pruned_flops / (made.rate.model * EFFICIENCY["sample"]) / 3600
    return found


def described(config: Mapping[str, Any], rate: str) -> str:
    """A table of a sweep's hours on a device, one line per model and one for all.

    Raises:
        SpecError: as of hours_of().
    """
    rates.check(rate)
    found = hours_of(read_sweep(config, files=False), config, rate)
    numbers = [[h.cells, h.prunings, h.pruning, h.images, h.drawing, h.pruning + h.drawing] for h in found.values()]
    rows = [[model, *line] for model, line in zip(found, numbers, strict=True)]
    rows.append(["all", *(sum(column) for column in zip(*numbers, strict=True))])
    form = ("", "d", "d", ".1f", "d", ".1f", ".1f")
    return "\n".join([f"On {rate}:", "", tabulate(rows, HEAD, tablefmt="pipe", floatfmt=form), "", LEFT_OUT])
