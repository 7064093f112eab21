"""Calibrations that cells share: what sampling the dense model gives, made once by a job.

With one package, cells that differ in sparsity, pattern or method calibrate on the same model, the dense one, and sum
up the same: Hessians under one set of step weights, with the moments that Wanda and others take. Calibrated
sequentially, they begin on the same trajectory of the dense model, whatever their weights. Every such cell takes it
from a shared folder, also one that is alone in its sweep: another sweep may have the others, and a cell is made in one
way. With several packages nothing is shared: they are for memory, which sums over all layers at once would need, and
only the first could be.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eval.sweep.cells import Cell, cell_hash
from obsdiff.canonical import canonical
from obsdiff.spec import PruneSpec

AXES = ("model", "weights", "packages", "sampling", "calibration", "seed")
PATTERN = "{model}/{weights}/" + "/".join(f"{axis}-{{{axis}}}" for axis in AXES[2:])
"""Calibration.path as a Snakemake pattern"""
SEQUENTIAL = "sequential"
SHARED = ("1", SEQUENTIAL)
"""values of `packages` that share"""
METHOD = "obs_diff"
"""a weighted method that takes Hessians, and so calibrates for every other"""
WEIGHTS = ("weighting", "alpha_min", "alpha_max", "alphas")
"""fields of PruneSpec that make the weights of the steps"""


@dataclass(frozen=True)
class Calibration:
    """What cells share; every value is as in the path of its folder.

    Attributes:
        weights: of the steps, such as `log_decrease-0.8-1.2`; `any` of a trajectory.
    """

    model: str
    weights: str
    packages: str
    sampling: str
    calibration: str
    seed: str

    @property
    def path(self) -> str:
        return PATTERN.format(**vars(self))


def calibration_of(cell: Cell, spec: PruneSpec) -> Calibration | None:
    """What a cell takes its calibration from; None where it does not calibrate, or shares nothing.

    Args:
        spec: the cell's, without prompts.
    """
    if not spec.calibrates or cell.packages not in SHARED:
        return None
    weights = "any" if cell.packages == SEQUENTIAL else weights_text(weights_of(spec))
    return Calibration(cell.model, weights, cell.packages, cell.sampling, cell.calibration, cell.seed)


def weights_of(spec: PruneSpec) -> dict[str, Any]:
    """The fields that make a spec's step weights, those without effect at their neutral value."""
    record = canonical(spec)
    return {key: record[key] for key in WEIGHTS}


def weights_text(weights: Mapping[str, Any]) -> str:
    """`uniform`, `log_decrease-0.8-1.2`, `table-1a2b3c4d`."""
    name, low, high = (weights[key] for key in WEIGHTS[:3])
    if weights["alphas"]:
        return f"{name}-{cell_hash({'alphas': list(weights['alphas'])})[:8]}"
    return name if low == high == 1.0 else f"{name}-{low:g}-{high:g}"


def shared(cells: Iterable[tuple[Cell, PruneSpec]]) -> dict[Calibration, list[Cell]]:
    """All calibrations of a sweep's cells and who takes them."""
    found: dict[Calibration, list[Cell]] = {}
    for cell, spec in cells:
        if (calibration := calibration_of(cell, spec)) is not None:
            found.setdefault(calibration, []).append(cell)
    return found
