"""Masks by ADMM: ALPS, Meng et al. 2024 (arXiv 2406.07831), algorithm 1.

The layer's problem, min over Ŵ of tr((W − Ŵ) H (W − Ŵ)ᵀ) with Ŵ in a pattern, is split into a quadratic part in B and
a projection onto the pattern in Z, held together by multipliers U and a penalty ρ. It is solved in coordinates in which
the Hessian's diagonal is 1: A = D⁻¹ H D⁻¹ and W D with D² = diag H.

    B ← (W A + ρ Z − U) (A + ρ I)⁻¹      Z ← the largest entries of B + U / ρ      U ← U + ρ (B − Z)

ρ grows with how much of the mask still changes. Where the authors take one eigendecomposition, (A + ρI)⁻¹ is computed
anew for each of the few values of ρ: a Cholesky factorisation and inverse cost c³ where eigenvectors cost some 10 c³,
and an iteration takes one matrix product where it took two.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ITERATIONS = 20
ROUND = 3
"""iterations per value of ρ"""
RHO = 0.1
GROWTH = ((0.1, 1.3**ROUND), (0.005, 1.2**ROUND), (-1.0, 1.1**ROUND))
"""(share of the mask that changed in a round, above it ρ grows by this factor)"""

Project = Callable[[Tensor], Tensor]
"""scores (rows, c) float32 → the keep mask (rows, c) bool of a pattern"""


def admm(weight: Tensor, hessian: Tensor, project: Project, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor]:
    """A mask, and weights on it that are close to its least-squares optimum (resolve() finishes them).

    Args:
        weight: (rows, c) float32.
        hessian: (c, c) float32, symmetric positive definite: damped, see resolve.damped(). Left as it is.
        project: the pattern's mask from scores in the scaled coordinates.
        iterations: at most; it ends when a round changes no entry of the mask.

    Returns:
        (rows, c) float32 weights and their (rows, c) bool keep mask.
    """
    scale = hessian.diagonal().sqrt()
    scaled = hessian / scale / scale[:, None]
    target = weight * scale
    keep = project(target.abs())
    split = target * keep
    pull = target @ scaled
    multipliers = torch.zeros_like(target)
    rho, before, inverse = RHO, keep, inverted(scaled, RHO)
    for i in range(1, iterations + 1):
        split.mul_(rho).add_(pull).sub_(multipliers)
        quadratic = split @ inverse
        torch.add(quadratic, multipliers, alpha=1 / rho, out=split)
        keep = project(split.abs())
        split.masked_fill_(~keep, 0.0)
        multipliers.add_(quadratic.sub_(split), alpha=rho)
        if i % ROUND == 0 and i < iterations:
            changed = float((keep ^ before).count_nonzero()) / max(1, int(keep.count_nonzero()))
            if not changed:
                break
            rho *= next(factor for least, factor in GROWTH if changed > least)
            before, inverse = keep, inverted(scaled, rho)
    return split.div_(scale), keep


def inverted(matrix: Tensor, ridge: float) -> Tensor:
    """(A + ridge · I)⁻¹ of a symmetric positive semi-definite (c, c) matrix with unit diagonal."""
    damped = matrix.clone()
    damped.diagonal().add_(ridge)
    return torch.cholesky_inverse(torch.linalg.cholesky(damped))
