"""How often a sweep samples to calibrate: every cell by itself, and with what cells share made once."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from eval.sweep.calibrations import SEQUENTIAL, Calibration, calibration_of
from eval.sweep.config import Sweep, read_sweep
from eval.sweep.specs import spec_of
from obsdiff import allocations
from obsdiff.spec import PruneSpec, stated


@dataclass
class Runs:
    """Of a model's cells that calibrate.

    Attributes:
        cells: how many.
        alone: sampling runs if each made its own.
        made: sampling runs with what they share made once.
        walks: cells that walk over the blocks of a sampled trajectory, about a run's forward passes each.
        others: `packages` whose number of runs the model's layers decide → cells.
    """

    cells: int = 0
    alone: int = 0
    made: int = 0
    walks: int = 0
    others: Counter[str] = field(default_factory=Counter)


def runs_of(sweep: Sweep, config: Mapping[str, Any]) -> dict[str, Runs]:
    """Model → its sampling runs."""
    found: dict[str, Runs] = {}
    seen: set[Calibration] = set()
    for cell in dict.fromkeys(cell.pruned_as() for cell in sweep.cells):
        spec = spec_of(cell, sweep, config)
        runs = found.setdefault(cell.model, Runs())
        if not spec.calibrates:
            continue
        runs.cells += 1
        calibration = calibration_of(cell, spec)
        if calibration is not None:
            runs.alone += 1 + (allocates(spec) and cell.packages != SEQUENTIAL)
            runs.walks += cell.packages == SEQUENTIAL
            runs.made += calibration not in seen
            seen.add(calibration)
        elif cell.packages.isdecimal():
            number = int(cell.packages) + allocates(spec)
            runs.alone += number
            runs.made += number
        else:
            runs.others[cell.packages] += 1
    return found


def allocates(spec: PruneSpec) -> bool:
    """Whether a cell samples once more for its allocation of sparsity, beside what it prunes from."""
    return allocations.traits(stated(spec.allocation)).statistic is not None and bool(spec.statistic)


def described(config: Mapping[str, Any]) -> str:
    """A table of a sweep's sampling runs, one line per model and one for all."""
    found = {model: runs for model, runs in runs_of(read_sweep(config, files=False), config).items() if runs.cells}
    rows = [[model, runs.cells, runs.alone, runs.made, runs.walks] for model, runs in found.items()]
    rows.append(
        ["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])] if rows else ["all", 0, 0, 0, 0]
    )
    head = ["model", "cells that calibrate", "sampling runs alone", "sampling runs shared", "walks"]
    return "\n".join([tabulate(rows, head, tablefmt="pipe"), *notes(found)])


def notes(found: Mapping[str, Runs]) -> Iterator[str]:
    for model, runs in found.items():
        for packages, count in runs.others.items():
            yield f"{model}: {count} cells more with packages {packages}, whose runs depend on the model's layers"
