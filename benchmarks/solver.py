"""Times of the factorisation and the column sweep, against the floor and against the plain solver of reference.py.

    python -m benchmarks.solver --out benchmarks/solver.md
    python -m benchmarks.solver --device cuda --out benchmarks/solver-cuda.md

The floor is one product of the weight with the Hessian, rows · columns² multiply-adds: about what any solver must do
that moves every weight for every column. Masks are compared with those of the plain sweep on the same factor, and those
of either solver, on its own factor, with the ones that the plain solver finds in float64.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks import reference
from benchmarks.clock import fastest
from benchmarks.made import as_typed
from eval.profile.machine import hardware
from obsdiff.devices import stated_precision
from obsdiff.errors import SpecError
from obsdiff.patterns import n_m, unstructured
from obsdiff.solver import factors, obs

SHAPES = ("1536x1536", "6144x1536", "2432x2432", "3072x3072", "1536x6144", "12288x3072")
"""rows × columns of Stable Diffusion 3 medium, 3.5 large and Flux"""
SPARSITY, BLOCK, DAMPING = 0.5, 128, 0.01
# what obsdiff selects with, what the plain solver does, and the columns that are decided together
PATTERNS: dict[str, tuple[obs.Select, reference.Select, int | None]] = {
    f"{SPARSITY:.0%}": (
        lambda scores, start: unstructured.keep(scores, SPARSITY, "block", start),
        lambda scores, start: reference.unstructured(scores, SPARSITY, start),
        None,
    ),
    "2:4": (
        lambda scores, start: n_m.keep(scores, SPARSITY, "row", start, n=2, m=4),
        lambda scores, _: reference.n_m(scores, 2, 4),
        4,
    ),
}


def shape_of(text: str) -> tuple[int, int]:
    """`6144x1536` as rows and columns."""
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns) and int(columns) % 4 == 0):
        raise SpecError(f"shapes: {text!r} is not ROWSxCOLUMNS with columns a multiple of 4, such as 6144x1536")
    return int(rows), int(columns)


def problem(rows: int, columns: int, device: str = "cpu", seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight and the Hessian of correlated inputs, the same ones on every device."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * columns, columns, generator=g)
    x += torch.randn(2 * columns, 64, generator=g) @ torch.randn(64, columns, generator=g) / 4
    weight, x = torch.randn(rows, columns, generator=g).to(device), x.to(device)
    return weight, x.T @ x / columns


def factor_buffers(hessian: Tensor) -> float | None:
    """The most memory that factors.factor() takes beside the Hessian, in matrices of its size; unknown on a CPU."""
    if not hessian.is_cuda:
        return None
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    factors.factor(hessian, DAMPING)
    return (torch.cuda.max_memory_allocated() - held) / hessian.nbytes


def measure(rows: int, columns: int, device: str, repeats: int) -> list[dict[str, Any]]:
    """One shape's record for each pattern: seconds, and how the masks agree.

    Returns:
        `floor`, `factor`, `sweep` and the plain solver's `plain_factor`, `plain_sweep` in seconds; `same`, `exact` and
        `plain_exact`: the share of weights on which masks agree, of our sweep and the plain one on our factor, and of
        each solver with float64's; `error` and `plain_error`: the layers' errors.
    """
    weight, hessian = problem(rows, columns, device)
    place = torch.device(device)
    weight @ hessian, factors.factor(hessian, DAMPING)  # libraries start up at their first call
    buffers = factor_buffers(hessian)
    factoring, made = fastest(
        {
            "floor": lambda: weight @ hessian,
            "factor": lambda: factors.factor(hessian, DAMPING),
            "plain_factor": lambda: reference.factor(hessian, DAMPING),
        },
        repeats,
        place,
    )
    factor, upper = made["factor"], made["plain_factor"]
    energy = obs.energy(weight, hessian)
    exact_upper = reference.factor(hessian.double(), DAMPING)
    records = []
    for name, (select, plain_select, stride) in PATTERNS.items():
        ours = partial(obs.sweep, weight, factor, select, BLOCK, stride, stay=2 if stride else None)
        theirs = partial(reference.sweep, weight, factor.upper, plain_select, BLOCK, stride)
        sweeping, swept = fastest({"sweep": ours}, repeats, place)
        walking, walked = fastest({"plain_sweep": theirs}, 1, place)
        found, (_, same) = swept["sweep"], walked["plain_sweep"]
        plain, plain_keep = reference.sweep(weight, upper, plain_select, BLOCK, stride)
        _, exact = reference.sweep(weight.double(), exact_upper, plain_select, BLOCK, stride)
        records.append(
            {"rows": rows, "columns": columns, "pattern": name, "buffers": buffers}
            | factoring
            | sweeping
            | walking
            | {
                "same": agreement(found.keep, same),
                "exact": agreement(found.keep, exact),
                "plain_exact": agreement(plain_keep, exact),
                "error": found.error / energy,
                "plain_error": reference.layer_error(weight, plain, hessian),
            }
        )
    return records


def agreement(one: Tensor, other: Tensor) -> float:
    return int((one == other).count_nonzero()) / one.numel()


def markdown(records: Sequence[dict[str, Any]], about: str) -> str:
    """The table, one line per record."""
    lines = [
        about,
        "",
        "| rows × columns | pattern | floor ms | sweep ms | × floor | plain sweep ms | gain | factor ms "
        "| plain factor ms | as plain sweep | as float64 | plain as float64 | layer error | plain's |",
        "|:--|:--|" + "--:|" * 12,
    ]
    for r in records:
        milliseconds = {key: f"{1e3 * r[key]:.3g}" for key in ("floor", "factor", "plain_factor")}
        lines.append(
            f"| {r['rows']} × {r['columns']} | {r['pattern']} | {milliseconds['floor']} | {1e3 * r['sweep']:.0f} "
            f"| {r['sweep'] / r['floor']:.1f} | {1e3 * r['plain_sweep']:.0f} | {r['plain_sweep'] / r['sweep']:.1f}× "
            f"| {milliseconds['factor']} | {milliseconds['plain_factor']} | {r['same']:.4%} | {r['exact']:.4%} "
            f"| {r['plain_exact']:.4%} | {r['error']:.6f} | {r['plain_error']:.6f} |"
        )
    return "\n".join(lines) + "\n"


@stated_precision()
@torch.no_grad()
def main(
    out: Path = Path("benchmarks/solver.md"),
    device: str = "cpu",
    threads: int = 2,
    repeats: int = 3,
    shapes: tuple[str, ...] = SHAPES,
) -> None:
    """Write a table of seconds, masks' agreement and errors.

    Args:
        device: cpu or cuda.
        repeats: of which the fastest counts; the plain sweep runs once.
        shapes: ROWSxCOLUMNS.
    """
    torch.set_num_threads(threads)
    sizes = [shape_of(text) for text in shapes]
    where = hardware(device) + (f", {threads} threads" if device == "cpu" else "")
    records: list[dict[str, Any]] = []
    for rows, columns in sizes:
        records += measure(rows, columns, device, repeats)
        taken = {r["buffers"] for r in records} - {None}
        memory = f" The factorisation takes {max(taken):.2f} matrices beside the Hessian at most." if taken else ""
        about = (
            f"float32, {where}, torch {torch.__version__}, blocks of {BLOCK}; fastest of {repeats}, the plain sweep "
            f"once. Floor: rows · columns² multiply-adds, as one product takes them.{memory} Made by "
            f"`{as_typed('solver')}`."
        )
        text = markdown(records, about)
        print("\n".join(text.splitlines()[-len(PATTERNS) :]), flush=True)
        out.write_text(text)


if __name__ == "__main__":
    tyro.cli(main)
