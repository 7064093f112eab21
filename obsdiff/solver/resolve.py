"""The weights of a given mask, re-solved: min over V zero off the mask of tr((V − W) H (V − W)ᵀ), row by row.

A row with survivors S has the optimum V_S = (H_SS)⁻¹ (H W)_S. All rows are solved at once by conjugate gradients,
whose iteration is one matrix product, preconditioned by H's diagonal (ALPS, Meng et al. 2024, algorithm 2); unlike
there it goes on until every row is solved.
"""

import torch
from torch import Tensor

from obsdiff.solver.factors import Factor

ITERATIONS = 200
"""at most; 10 to 30 are usual"""
TOLERANCE = 3e-4
"""a row's residual at which it is solved, relative to the right-hand side, both in the preconditioned norm; what it
leaves of the error above the optimum is of the order of its square times the energy of the dense layer's output"""


def damped(hessian: Tensor, factor: Factor) -> Tensor:
    """H + λI with the λ of a factorisation; columns whose input was always zero get a 1 on the diagonal."""
    result = hessian.clone()
    result.diagonal().add_(factor.dead.to(hessian.dtype) + factor.ridge)
    return result


def resolve(weight: Tensor, hessian: Tensor, keep: Tensor, start: Tensor | None = None) -> Tensor:
    """The least-squares optimum on a mask.

    Args:
        weight: (rows, c) float32, dense.
        hessian: (c, c) float32, symmetric positive definite.
        keep: (rows, c) bool.
        start: (rows, c) float32, a guess that saves iterations; by default the dense weights.

    Returns:
        (rows, c) float32, zero where `keep` is false.
    """
    mask = keep.to(weight.dtype)
    inverse = 1 / hessian.diagonal()
    tiny = torch.finfo(weight.dtype).tiny
    whole = ((weight @ hessian).mul_(mask).square_() @ inverse).clamp_min_(tiny)
    solution = (weight if start is None else start) * mask
    residual = ((weight - solution) @ hessian).mul_(mask)
    direction = residual * inverse
    size = (residual * direction).sum(dim=1)
    for _ in range(ITERATIONS):
        if float((size / whole).max()) <= TOLERANCE**2:
            break
        product = (direction @ hessian).mul_(mask)
        length = size / (direction * product).sum(dim=1).clamp_min_(tiny)
        solution.addcmul_(direction, length[:, None])
        residual.addcmul_(product, length[:, None], value=-1)
        scaled = residual * inverse
        after = (residual * scaled).sum(dim=1)
        direction.mul_((after / size.clamp_min(tiny))[:, None]).add_(scaled)
        size = after
    return solution
