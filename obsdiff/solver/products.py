"""Sums of XᵀX, of the upper triangle alone, in the fastest arithmetic in which every product is exact.

The significands of two bfloat16 or float16 numbers have 8 or 11 bits, their product 16 or 22, which float32 (24) holds.
Tensor cores multiply them so and add up in float32, but truncate where float32 rounds: measured on an H200, sums are
off by 3e-5 of √(Hᵢᵢ Hⱼⱼ) instead of 1e-6, at 4 to 14 times the speed (benchmarks/statistics-cuda.md). TensorFloat-32
keeps 11 bits, and so both kinds as they are. float32 inputs are no such numbers and stay in float32.
"""

from contextlib import nullcontext
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from obsdiff.devices import tensor_float32

Way = Literal["float32", "half", "tf32"]
HALF = (torch.float16, torch.bfloat16)
WIDTHS = {"cpu": 256, "cuda": 1024}
"""rows of the triangle that one product makes: narrow saves arithmetic, wide is faster"""
WHOLE = 4096
"""columns up to which tensor cores are faster on one whole product than on the triangle's parts"""


def way(device: str, dtype: torch.dtype, served: bool) -> Way:
    """How products of inputs are computed, each exact in float32.

    Args:
        device: type of the inputs' device.
        dtype: of the inputs.
        served: whether the device multiplies halves into float32.

    Returns:
        `half` (half × half → float32), `tf32` (halves as float32, in TensorFloat-32) or `float32` (in full).
    """
    if device != "cuda" or dtype not in HALF:
        return "float32"
    return "half" if served else "tf32"


@cache
def served(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has products of this half dtype with sums in float32 on the device, tried once."""
    if device.type != "cuda" or dtype not in HALF:
        return False
    x = torch.full((16, 16), 257 / 256 if dtype == torch.float16 else 129 / 128, device=device).to(dtype)
    sums = torch.ones(16, 32, device=device)[:, :16]
    try:
        torch.addmm(sums, x.T, x, out_dtype=torch.float32, out=sums)
    except RuntimeError:  # an older GPU, or ROCm
        return False
    return bool((sums == 1 + 16 * x.float().square()).all())


def add(sums: Tensor, x: Tensor, alpha: float) -> None:
    """sums += alpha · XᵀX in the block rows of the upper triangle; what is below them means nothing.

    Args:
        sums: (c, c) float32, on any device.
        x: (tokens, c), floating point, multiplied on its own device.
    """
    chosen = way(x.device.type, x.dtype, served(x.device, x.dtype))
    x = x if chosen == "half" else x.float()
    width = WHOLE if chosen != "float32" and x.shape[1] <= WHOLE else WIDTHS[x.device.type]
    with tensor_float32() if chosen == "tf32" else nullcontext():
        for start in range(0, x.shape[1], width):
            rows, left, right = sums[start : start + width, start:], x[:, start : start + width].T, x[:, start:]
            if rows.device != x.device:
                made = torch.mm(left, right, out_dtype=torch.float32) if chosen == "half" else left @ right
                rows += (alpha * made).to(rows.device)
            elif chosen == "half":
                torch.addmm(rows, left, right, out_dtype=torch.float32, alpha=alpha, out=rows)
            else:
                rows.addmm_(left, right, alpha=alpha)


def mirror(sums: Tensor) -> Tensor:
    """Write the upper triangle of (c, c) into the lower one, in place."""
    width = WIDTHS["cpu"]
    for start in range(0, len(sums), width):
        stop = start + width
        corner = sums[start:stop, start:stop]
        corner.copy_(corner.triu() + corner.triu(1).T)
        sums[stop:, start:stop] = sums[start:stop, stop:].T
    return sums
