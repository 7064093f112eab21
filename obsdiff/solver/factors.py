"""The Cholesky factor of a damped Hessian's inverse, as the column sweep reads it: U, upper, with UᵀU = (H + λI)⁻¹.

U is the inverse of R, upper, with R Rᵀ = H + λI: a Cholesky factorisation from the last column to the first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPING_RAISE, DAMPING_TRIES = 10.0, 5
INVERSE_LEAF = 256
"""the size of a triangle that is inverted by one solve"""


class FactorisationError(Exception):
    """No damping tried made the Hessian positive definite."""


@dataclass(frozen=True)
class Factor:
    """The sweep's view of a Hessian.

    Attributes:
        upper: (c, c) float32, U with UᵀU = (H + λI)⁻¹.
        dead: (c,) bool, columns whose input was always zero; their weights are free to go.
        damping: the λ used, in units of mean(diag H).
        ridge: the λ used, in units of H.
    """

    upper: Tensor
    dead: Tensor
    damping: float
    ridge: float


def factor(hessian: Tensor, damping: float = 0.01) -> Factor:
    """Invert and factor a damped Hessian; a failure raises the damping tenfold, up to five times.

    The Cholesky factorisation is in float64: in float32 its rounding is what most of U's error comes from. It takes
    three float32 matrices of the Hessian's size beside it.

    Args:
        hessian: (c, c) float32, symmetric, positive semi-definite; left as it is.
        damping: λ / mean(diag H); 0.01 in the official code.

    Raises:
        FactorisationError: the Hessian is not finite, or not positive definite at any damping tried.
    """
    if not torch.isfinite(torch.stack(torch.aminmax(hessian))).all():
        raise FactorisationError("the Hessian is not finite")
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    live = diagonal.masked_fill(dead, 1.0)
    scale = float(live[~dead].mean()) if not dead.all() else 1.0
    for _ in range(DAMPING_TRIES + 1):
        ridge = damping * scale
        upper = reverse_cholesky(hessian, live.double() + ridge)
        if upper is not None:
            invert_upper(upper)
            if torch.isfinite(upper.sum()):
                return Factor(upper, dead, damping, ridge)
        damping *= DAMPING_RAISE
    raise FactorisationError(f"the Hessian is not positive definite at damping {damping / DAMPING_RAISE:g}")


def reverse_cholesky(hessian: Tensor, diagonal: Tensor) -> Tensor | None:
    """R, upper (c, c) float32, with R Rᵀ = the Hessian with that diagonal; None where it is not positive definite."""
    # of the symmetric matrix with its axes reversed; column-major, so that LAPACK works in place
    flipped = hessian.flip(0, 1).double().mT
    flipped.diagonal().copy_(diagonal.flip(0))
    failed = torch.empty((), dtype=torch.int32, device=hessian.device)
    torch.linalg.cholesky_ex(flipped, out=(flipped, failed))
    if failed:
        return None
    lower = flipped.float()
    del flipped
    return lower.flip(0, 1)


def invert_upper(matrix: Tensor) -> None:
    """Invert an upper triangular matrix in place, by halves: [[A, B], [0, C]]⁻¹ = [[A⁻¹, −A⁻¹BC⁻¹], [0, C⁻¹]].

    It takes half the matrix beside it.
    """
    size = matrix.shape[0]
    if size <= INVERSE_LEAF:
        identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
        matrix.copy_(torch.linalg.solve_triangular(matrix, identity, upper=True))
        return
    half = size // 2
    first, corner, last = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
    moved = torch.linalg.solve_triangular(first, corner, upper=True)
    moved = torch.linalg.solve_triangular(last, moved, upper=True, left=False)
    torch.neg(moved, out=corner)
    del moved
    invert_upper(first)
    invert_upper(last)
