"""Times of ADMM and of the exact re-solve beside the column sweep's, on the real shapes of benchmarks/solver.py.

    python -m benchmarks.admm --out benchmarks/admm.md
    python -m benchmarks.admm --device cuda --out benchmarks/admm-cuda.md

ALPS as published takes one eigendecomposition of the Hessian for each input; ours a Cholesky factorisation and inverse
for each value of ρ. Both are timed, so that the table shows which is cheaper at which width. Errors are
tr(ΔW H ΔWᵀ) / tr(W H Wᵀ) with the damped Hessian, of which a layer's solution is the optimum on its mask.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.clock import fastest
from benchmarks.made import as_typed
from benchmarks.solver import BLOCK, DAMPING, PATTERNS, SHAPES, SPARSITY, problem, shape_of
from eval.profile.machine import hardware
from obsdiff.devices import stated_precision
from obsdiff.patterns import n_m, unstructured
from obsdiff.solver import factors, obs
from obsdiff.solver.admm import RHO, admm, inverted
from obsdiff.solver.resolve import damped, resolve

PROJECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    f"{SPARSITY:.0%}": lambda scores: unstructured.keep(scores, SPARSITY, "layer"),
    "2:4": lambda scores: n_m.keep(scores, SPARSITY, "row", n=2, m=4),
}


def measure(rows: int, columns: int, device: str, repeats: int, eigen: bool) -> list[dict[str, Any]]:
    """One shape's record for each pattern: seconds of each part, and the errors that are left.

    Args:
        eigen: whether the eigendecomposition is timed; it is left out otherwise.
    """
    weight, hessian = problem(rows, columns, device)
    place = torch.device(device)
    factor = factors.factor(hessian, DAMPING)
    whole = damped(hessian, factor)
    scale = whole.diagonal().sqrt()
    scaled = whole / scale / scale[:, None]
    inverted(scaled, RHO)  # libraries start up at their first call
    parts, _ = fastest(
        {
            "floor": lambda: weight @ hessian,
            "factor": lambda: factors.factor(hessian, DAMPING),
            "inverse": lambda: inverted(scaled, RHO),
        },
        repeats,
        place,
    )
    if eigen:
        parts |= fastest({"eigen": lambda: torch.linalg.eigh(scaled)}, 1, place)[0]
    energy = obs.energy(weight, whole)
    records = []
    for name, project in PROJECTIONS.items():
        select, _, stride = PATTERNS[name]
        sweeping = partial(obs.sweep, weight, factor, select, BLOCK, stride, stay=2 if stride else None)
        masking = partial(admm, weight, whole, project)
        masks_seconds, masks = fastest({"sweep": sweeping, "admm": masking}, repeats, place)
        sweep, (start, keep) = masks["sweep"], masks["admm"]
        solving = partial(resolve, weight, whole, keep, start)
        again = partial(resolve, weight, whole, sweep.keep, sweep.weight)
        solve_seconds, solved = fastest({"resolve": solving, "resolve_sweep": again}, repeats, place)
        found = {"sweep": sweep.weight, "resolved_sweep": solved["resolve_sweep"], "resolved": solved["resolve"]}
        errors = {f"{key}_error": obs.energy(one - weight, whole) / energy for key, one in found.items()}
        records.append(
            {"rows": rows, "columns": columns, "pattern": name} | parts | masks_seconds | solve_seconds | errors
        )
    return records


def markdown(records: Sequence[dict[str, Any]], about: str) -> str:
    """The table, one line per record."""
    lines = [
        about,
        "",
        "| rows × columns | pattern | floor ms | factor ms | sweep ms | ADMM ms | × floor | re-solve ms "
        "| inverse of one ρ ms | eigendecomposition ms | error of the sweep | its mask re-solved | ADMM re-solved |",
        "|:--|:--|" + "--:|" * 11,
    ]
    for r in records:
        eigen = f"{1e3 * r['eigen']:.0f}" if "eigen" in r else ""
        ms = {key: 1e3 * r[key] for key in ("floor", "factor", "sweep", "admm", "resolve", "inverse")}
        errors = " | ".join(f"{r[f'{key}_error']:.6f}" for key in ("sweep", "resolved_sweep", "resolved"))
        lines.append(
            f"| {r['rows']} × {r['columns']} | {r['pattern']} | {ms['floor']:.3g} | {ms['factor']:.3g} "
            f"| {ms['sweep']:.0f} | {ms['admm']:.0f} | {r['admm'] / r['floor']:.0f} | {ms['resolve']:.0f} "
            f"| {ms['inverse']:.3g} | {eigen} | {errors} |"
        )
    return "\n".join(lines) + "\n"


@stated_precision()
@torch.no_grad()
def main(
    out: Path = Path("benchmarks/admm.md"),
    shapes: tuple[str, ...] = SHAPES,
    device: str = "cpu",
    repeats: int = 2,
    eigen: int = 3072,
    threads: int = 1,
) -> None:
    """Measure and write the table.

    Args:
        eigen: widths up to this have their eigendecomposition timed.
    """
    torch.set_num_threads(threads)
    records = []
    for rows, columns in map(shape_of, shapes):
        records += measure(rows, columns, device, repeats, columns <= eigen)
        print(f"{rows} × {columns}", file=sys.stderr, flush=True)
    made = (
        f"float32, {hardware(device)}, torch {torch.__version__}; fastest of {repeats}. Made by `{as_typed('admm')}`."
    )
    out.write_text(markdown(records, made))


if __name__ == "__main__":
    tyro.cli(main)
