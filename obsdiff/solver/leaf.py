"""The few columns of a sweep that follow one another as vectors, in one GPU kernel (Triton).

A GPU spends a thousand times longer on launching a vector operation than on doing it, and a sweep has several for each
column. Rows do not depend on each other: a thread takes one row of the layer through all columns of a leaf.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 128
"""per program, one per thread"""


@triton.jit
def move(w, errors, u, q, first, last, r, inside, rows, down, right):
    """Move column q of the rows by what was removed from the columns first to last, without the latter."""
    x = tl.load(w + q * rows + r, mask=inside, other=0.0)
    for i in range(first, last):
        x -= tl.load(errors + i * rows + r, mask=inside, other=0.0) * tl.load(u + i * down + q * right)
    tl.store(w + q * rows + r, x, mask=inside)
    return x


@triton.jit
def cost(w, u, dead, q, r, inside, rows, down, right):
    x = tl.math.div_rn(tl.load(w + q * rows + r, mask=inside, other=0.0), tl.load(u + q * (down + right)))
    return tl.where(tl.load(dead + q) != 0, 0.0, x * x)


@triton.jit
def leaf_kernel(
    w, keep, errors, u, dead, rows, down, right, size, N: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr
):
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = r < rows
    for start in range(0, size, M):
        first = 0
        if N > 0:
            first = start
            for j in range(M):
                move(w, errors, u, start + j, 0, start, r, inside, rows, down, right)
            for j in range(M):
                own = cost(w, u, dead, start + j, r, inside, rows, down, right)
                rank = tl.full((ROWS,), 0, tl.int32)
                for i in range(M):
                    other = cost(w, u, dead, start + i, r, inside, rows, down, right)
                    before = (other < own) | ((other == own) & (i < j))
                    rank += before.to(tl.int32)
                stays = rank >= M - N
                tl.store(keep + (start + j) * rows + r, stays.to(tl.uint8), mask=inside)
                gone = tl.where(stays, 0.0, tl.math.div_rn(1.0, tl.load(u + (start + j) * (down + right))))
                tl.store(errors + (start + j) * rows + r, gone, mask=inside)
        for j in range(M):
            q = start + j
            x = move(w, errors, u, q, first, q, r, inside, rows, down, right)
            e = tl.load(errors + q * rows + r, mask=inside, other=0.0)
            tl.store(errors + q * rows + r, e * x, mask=inside)


def sweep_leaf(w: Tensor, keep: Tensor, errors: Tensor, upper: Tensor, dead: Tensor, n: int = 0, m: int = 1) -> None:
    """Take a leaf's columns one by one, each moved by what was removed before it in the leaf.

    Args:
        w: (l, rows) float32 on a GPU, contiguous, the leaf's columns of Wᵀ; moved in place, not yet made zero.
        keep: (l, rows) bool, contiguous; not read where m is 1, and filled in otherwise.
        errors: (l, rows) float32, contiguous; 1 / U_qq where a weight goes and 0 elsewhere becomes e_q. With m > 1 it
            is only written.
        upper: (l, l) float32, the leaf's part of U; any strides.
        dead: (l,) bool.
        n: of every m columns the n weights of highest w² / [H⁻¹]_qq stay, ties as patterns/n_m.py has them.
    """
    size, rows = w.shape
    grid = (triton.cdiv(rows, ROWS),)
    leaf_kernel[grid](
        w, keep.view(torch.uint8), errors, upper, dead.view(torch.uint8), rows, *upper.stride(), size, n, m, ROWS
    )
