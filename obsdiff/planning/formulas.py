"""FLOPs of the phases of a pruning run, and those of statistics and solvers as formulas.

They are of matrix products and factorisations, 2 a multiply-add. With t rows (tokens) of an input of c columns, and
layers of r outputs:

    encode      2 · parameters · tokens of a text, embeddings aside
    sample      calls of the denoiser, as torch counts them
    statistics  t · c² for the upper triangle of XᵀX, and what block rows reach beyond it
    solve       c³ / 3 for a Cholesky factorisation (float64) and as much for the inverse of a triangle, a Hessian;
                r · c² for a sweep, and as much for each energy tr(W H Wᵀ) that a layer's error takes
                of ADMM c³ for each ρ, a factorisation and an inverse, and 2 · r · c² an iteration, and as much for an
                iteration of the re-solve
    eliminate   in float64: c³ / 3 for the inverse, then 2 · (c² + 2 · r · c) a column that goes, and what its delay
                and groups wider than a column add (elimination.py)

What is not products (scores of Wanda or the norm of weights, sorting, DSnoT's swaps) is bound by memory and left out.
"""

from torch import nn

from obsdiff import models, targets
from obsdiff.solver import admm, elimination, products
from obsdiff.spec import PruneSpec
from obsdiff.targets import Target

SWEPT, DECIDED, ELIMINATED = 4, 12, 40
"""operations, each after the other: of a swept column, of a choice of columns, of a removed group"""
TRIANGLE = 512
"""rows of H⁻¹ that one product makes (elimination.inverse)"""
RESOLVED = 20
"""iterations of the re-solve"""


def statistics_flops(columns: int, rows: int, device: str) -> int:
    """Of the products of one Hessian of inputs (rows, columns), as products.add() makes them on a type of device."""
    width = products.WIDTHS[device]
    return sum(2 * rows * min(width, columns - i) * (columns - i) for i in range(0, columns, width))


def factor_flops(columns: int) -> tuple[int, int]:
    """Of factors.factor(): of its Cholesky factorisation in float64, and of the triangular inverse."""
    return columns**3 // 3, columns**3 // 3


def sweep_flops(rows: int, columns: int) -> int:
    """Of obs.sweep(): every column moves those to its right."""
    return rows * columns**2


def elimination_flops(rows: int, columns: int, size: int, count: int) -> int:
    """Of elimination.eliminate(): `count` groups of `size` columns go, and matrices are renewed once a block."""
    step = max(1, elimination.BLOCK // size)
    removed, renewed = size * count, max(0, count - 1) // step
    inverse = sum(
        2 * min(TRIANGLE, columns - at) * min(TRIANGLE, columns - start) * (columns - at)
        for start in range(0, columns, TRIANGLE)
        for at in range(start, columns, TRIANGLE)
    )
    moves = 2 * renewed * step * size * columns**2 + 4 * removed * rows * columns
    waiting = 2 * removed * step * size * (rows + columns)
    own = 6 * removed * columns * size + 2 * (renewed + 1) * rows * columns * size if size > 1 else 0
    return inverse + moves + waiting + own


def solver_flops(denoiser: nn.Module, target: Target, spec: PruneSpec, dtype: str) -> tuple[int, int, int, int]:
    """Of one target: all but elimination, what of that is in float64, elimination, and small operations."""
    solve = double = eliminate = operations = 0
    if spec.statistic != "hessian":
        return 0, 0, 0, 0
    for group in target.unit:
        _, columns = models.shape(denoiser, group[0])
        first, second = factor_flops(columns)
        solve, double = solve + first + second, double + first
        masks = spec.traits.compensates and not target.sites
        for name in group:
            rows, _ = models.shape(denoiser, name)
            sweeps = masks and spec.compensate and spec.chosen_solver != "admm"
            energies = 1 if sweeps and dtype == "float32" and spec.chosen_solver == "sweep" else 2
            solve += sweep_flops(rows, columns) * (energies + sweeps)
            if masks:
                solve += resolve_flops(rows, columns, spec)
            if sweeps:
                decisions = columns // (spec.resolved.multiple if spec.resolved.multiple > 1 else spec.block_size)
                operations += SWEPT * columns * spec.compensate + DECIDED * decisions
    for site in target.sites if spec.traits.compensates else ():
        count = targets.removed_groups(site, targets.sparsity_of(target.layers, spec)) if spec.compensate else 0
        for stream in site.streams:
            rows, columns = models.shape(denoiser, stream.consumer.layer)
            eliminate += elimination_flops(rows, columns, site.size, count)
            operations += ELIMINATED * count
    return solve, double, eliminate, operations


def resolve_flops(rows: int, columns: int, spec: PruneSpec) -> int:
    """Of ADMM and of the re-solve of a layer."""
    total, product = 0, 2 * rows * columns**2
    if spec.chosen_solver != "sweep":
        total += (admm.ITERATIONS + 1) * product + -(-admm.ITERATIONS // admm.ROUND) * columns**3
    if spec.compensate and (spec.resolve or spec.chosen_solver != "sweep"):
        total += RESOLVED * product * (2 if spec.chosen_solver == "best" else 1)
    return total
