"""Time of the factorisation and the blocked sweep against a straightforward column-by-column implementation.

    python benchmarks/solver.py --out benchmarks/solver.md

The straightforward one has no Cholesky factor and no blocks: after every column it updates all weights to the right
and takes the column out of the whole inverse Hessian. Both choose the mask of 128 columns when they reach them.
"""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from torch import Tensor

from obsdiff import obs
from obsdiff.patterns import unstructured

SHAPES = ((1536, 1536), (6144, 1536), (1536, 6144))
SPARSITY, BLOCK, DAMPING = 0.5, 128, 0.01


def problem(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight and the Hessian of correlated inputs."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * columns, columns, generator=g)
    x += torch.randn(2 * columns, 64, generator=g) @ torch.randn(64, columns, generator=g) / 4
    return torch.randn(rows, columns, generator=g), x.T @ x / columns


def select(scores: Tensor, start: int) -> Tensor:
    return unstructured.keep(scores, SPARSITY, "block", start)


def straightforward_inverse(hessian: Tensor) -> Tensor:
    damped = hessian.clone()
    damped.diagonal().add_(DAMPING * hessian.diagonal().mean())
    return torch.linalg.inv(damped)


def straightforward_sweep(weight: Tensor, inverse: Tensor) -> Tensor:
    w, h = weight.clone(), inverse.clone()
    columns = w.shape[1]
    keep = torch.ones_like(w, dtype=torch.bool)
    for q in range(columns):
        if q % BLOCK == 0:
            # what [H⁻¹]_qq will be at each column's turn, as both implementations judge a block when they reach it
            stop = min(q + BLOCK, columns)
            turn = torch.linalg.cholesky(h[q:stop, q:stop], upper=True).diagonal().square()
            keep[:, q:stop] = select(w[:, q:stop].square() / turn, q)
        error = w[:, q].masked_fill(keep[:, q], 0.0) / h[q, q]
        w[:, q:] -= torch.outer(error, h[q, q:])
        h[q:, q:] -= torch.outer(h[q:, q], h[q, q:]) / h[q, q].clone()
        h[q, q] = 1.0  # taken out; nothing reads it again
    return w * keep


def clocked(call: Callable[[], object], repeats: int) -> tuple[float, object]:
    """Fastest wall-clock seconds of `repeats` calls, and what the last one returned."""
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - begun)
    return best, result


def main(out: Path = Path("benchmarks/solver.md"), threads: int = 2, repeats: int = 3) -> None:
    """Write a table of seconds and errors.

    Args:
        repeats: of which the fastest counts; the straightforward sweep runs once.
    """
    torch.set_num_threads(threads)
    lines = [
        f"float32, {threads} threads, {platform.machine()}, torch {torch.__version__}; seconds; sparsity {SPARSITY}, "
        f"blocks of {BLOCK}; made by `python benchmarks/solver.py --threads {threads} --repeats {repeats}`.",
        "",
        "| rows × columns | factorisation | inverse | sweep | column by column | gain | layer error | the other's |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for rows, columns in SHAPES:
        weight, hessian = problem(rows, columns)
        factoring, factor = clocked(lambda h=hessian: obs.factor(h, DAMPING), repeats)
        inverting, inverse = clocked(lambda h=hessian: straightforward_inverse(h), repeats)
        sweeping, swept = clocked(lambda w=weight, f=factor: obs.sweep(w, f, select, BLOCK)[0], repeats)
        walking, walked = clocked(lambda w=weight, i=inverse: straightforward_sweep(w, i), 1)
        errors = [obs.layer_error(weight, pruned, hessian) for pruned in (swept, walked)]
        lines.append(
            f"| {rows} × {columns} | {factoring:.2f} | {inverting:.2f} | {sweeping:.2f} | {walking:.1f} "
            f"| {walking / sweeping:.1f}× | {errors[0]:.6f} | {errors[1]:.6f} |"
        )
        print(lines[-1], flush=True)
        out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
