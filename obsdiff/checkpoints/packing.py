"""A pruned weight as the few bytes it needs: which weights stay, and their values in row order.

Unstructured masks take one bit a weight. An N:M mask is one of C(M, N) for every M columns, and takes the bits of
that number: 3 for 2:4 (of 4), 7 for 4:8 (of 8), 2 for 1:4.
"""

from functools import cache
from itertools import combinations
from math import comb

import numpy as np
import torch
from torch import Tensor

WIDEST = 16
"""M up to which N:M codes are used; the table of a wider one would be too large, and it gets a bitmask."""


def pack(weight: Tensor, n: int = 0, m: int = 0) -> dict[str, Tensor]:
    """(rows, columns) → its parts, 1-D each: `mask` (uint8, 8 weights a byte) or `codes` (uint8), and `values`.

    Args:
        n, m: of an N:M weight; 0 for any other.

    Raises:
        ValueError: more than n of m columns are nonzero.
    """
    kept = weight.ne(0).cpu().numpy()
    if not coded(n, m):
        bits = np.packbits(kept.ravel())
    else:
        kept = filled(kept.reshape(-1, m), n)
        codes = codes_of(n, m)[kept @ (1 << np.arange(m))]
        bits = np.packbits((codes[:, None] >> np.arange(width(n, m))) & 1)
    values = weight.flatten()[torch.from_numpy(kept.ravel()).to(weight.device)]
    return {"codes" if coded(n, m) else "mask": torch.from_numpy(bits), "values": values.contiguous()}


def unpack(parts: dict[str, Tensor], shape: tuple[int, int], n: int = 0, m: int = 0) -> Tensor:
    """The weight again, bit for bit: (rows, columns) in the values' dtype.

    Raises:
        ValueError: the parts are not those of a weight of that shape.
    """
    rows, columns = shape
    values = parts["values"]
    if "mask" in parts:
        bits = bits_of(parts["mask"], "mask", rows * columns)
        kept = bits.astype(bool)
    else:
        groups, wide = rows * columns // m, width(n, m)
        bits = bits_of(parts["codes"], "codes", groups * wide).reshape(groups, wide)
        codes = bits.astype(np.int64) @ (1 << np.arange(wide))
        if codes.size and codes.max() >= comb(m, n):
            raise ValueError(f"its codes go up to {codes.max()}, and {n}:{m} has {comb(m, n)}")
        kept = ((masks_of(n, m)[codes][:, None] >> np.arange(m)) & 1).astype(bool).ravel()
    if values.dim() != 1 or kept.size != rows * columns or len(values) != kept.sum():
        what = "mask keeps" if "mask" in parts else "codes keep"
        raise ValueError(f"its {what} {kept.sum()} of {rows * columns} weights, and there are {tuple(values.shape)}")
    weight = torch.zeros(rows * columns, dtype=values.dtype)
    weight[torch.from_numpy(kept)] = values
    return weight.view(shape)


def bits_of(packed: Tensor, name: str, count: int) -> np.ndarray:
    """(count,) uint8, a bit each; ValueError where there are not as many."""
    if packed.dtype != torch.uint8 or packed.dim() != 1 or len(packed) != -(-count // 8):
        verb = "have" if name.endswith("s") else "has"
        raise ValueError(f"its {name} {verb} {tuple(packed.shape)} bytes of {packed.dtype}, not {-(-count // 8)}")
    return np.unpackbits(packed.numpy(), count=count)


def coded(n: int, m: int) -> bool:
    return 0 < n < m <= WIDEST


def width(n: int, m: int) -> int:
    """Bits a code of N:M takes."""
    return (comb(m, n) - 1).bit_length()


@cache
def masks_of(n: int, m: int) -> np.ndarray:
    """(C(m, n),) int64: every mask of n bits in m, ascending; a mask's code is its index."""
    return np.array(sorted(sum(1 << i for i in chosen) for chosen in combinations(range(m), n)), dtype=np.int64)


@cache
def codes_of(n: int, m: int) -> np.ndarray:
    """(2^m,) int64: the code of a mask."""
    codes = np.zeros(1 << m, dtype=np.int64)
    codes[masks_of(n, m)] = np.arange(comb(m, n))
    return codes


def filled(kept: np.ndarray, n: int) -> np.ndarray:
    """(groups, m) masks of n at most, raised to n each: a kept weight may be zero by value."""
    counts = kept.sum(axis=1)
    if (counts > n).any():
        raise ValueError(f"{int(counts.max())} of {kept.shape[1]} columns are nonzero, more than {n}")
    zeros = np.cumsum(~kept, axis=1)
    return np.asarray(kept | (~kept & (zeros <= (n - counts)[:, None])))
