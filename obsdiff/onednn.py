"""float32 matrix products of a CPU by oneDNN, where MKL leaves half of the processor idle.

torch gives float32 products to MKL, which takes its AVX-512 kernels on Intel's processors alone. oneDNN, which torch
has for convolutions, looks at the instructions and not at the maker: on an AMD EPYC it multiplies twice
as fast (`python -m benchmarks.products`). Sums differ in rounding, as between two versions of MKL.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SMALL = 1 << 21
"""multiply-adds of a product from which its own kernel pays for the longer call"""
LARGE = 1 << 30
"""multiply-adds that no product of a model as small as the zoo's has: its masks stay those of torch's own kernels"""
ROWS = 512
"""of a product that is added to a matrix at once; with them the sums stay in the processor's cache"""


@cache
def faster() -> bool:
    """Whether MKL would take narrower kernels than this processor has, and this torch has oneDNN's."""
    import torch

    backends: Any = torch.backends
    return bool(
        backends.mkl.is_available()
        and backends.mkldnn.is_available()
        and backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and cpuinfo("vendor_id") not in (None, "GenuineIntel")
    )


def cpuinfo(field: str) -> str | None:
    """What Linux tells of the processor, such as its "model name"; None of another system."""
    told = Path("/proc/cpuinfo")
    found = re.search(rf"^{field}\s*: (.+)$", told.read_text(), re.MULTILINE) if told.is_file() else None
    return found[1].strip() if found else None


@contextmanager
def products(smallest: int) -> Iterator[None]:
    """torch's products of large float32 matrices on the CPU are oneDNN's for the block, where that is faster.

    All others, of other dtypes and with `out`, and the autograd of all, are as without it.

    Args:
        smallest: SMALL, or LARGE where a mask is decided, which rounding can change.
    """
    if not faster():
        yield
        return
    from torch.library import _scoped_library

    with _scoped_library("aten", "IMPL") as library:
        for kernel in (mm, addmm, addmm_):
            library.impl(kernel.__name__, partial(kernel, smallest), "CPU", allow_override=True)
        yield


def fits(smallest: int, x: "Tensor", y: "Tensor", *others: "Tensor") -> bool:
    """Whether x @ y is large enough, and a product that oneDNN has."""
    import torch

    return (
        x.dim() == y.dim() == 2
        and x.shape[0] * x.shape[1] * y.shape[1] >= smallest
        and x.shape[1] == y.shape[0]
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in (x, y, *others))
    )


def product(x: "Tensor", y: "Tensor", bias: "Tensor | None" = None) -> "Tensor":
    """x @ y, and a bias (columns of y,) added to every row."""
    import torch

    if bias is not None:  # its strides are not looked at
        bias = bias.contiguous()
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, dense(y).t(), bias, "none", [], "")
    return found


def dense(matrix: "Tensor") -> "Tensor":
    """The matrix in its order, without gaps between rows or columns; with them oneDNN takes a slow reference kernel."""
    if matrix.is_contiguous() or matrix.t().is_contiguous():
        return matrix
    return matrix.t().contiguous().t() if matrix.stride(0) == 1 else matrix.contiguous()


def mm(smallest: int, self: "Tensor", mat2: "Tensor") -> "Tensor":
    import torch

    return product(self, mat2) if fits(smallest, self, mat2) else torch.mm(self, mat2, out=self.new_empty(0))


def addmm(
    smallest: int, self: "Tensor", mat1: "Tensor", mat2: "Tensor", *, beta: float = 1, alpha: float = 1
) -> "Tensor":
    import torch

    if fits(smallest, mat1, mat2, self) and self.shape == mat2.shape[1:] and beta == alpha == 1:
        return product(mat1, mat2, self)
    return torch.addmm(self, mat1, mat2, beta=beta, alpha=alpha, out=self.new_empty(0))


def addmm_(
    smallest: int, self: "Tensor", mat1: "Tensor", mat2: "Tensor", *, beta: float = 1, alpha: float = 1
) -> "Tensor":
    import torch

    if self.shape != (*mat1.shape[:1], *mat2.shape[1:]):  # as `out` it would be resized
        size = list(torch.addmm(mat1.new_zeros(()), mat1, mat2, out=mat1.new_empty(0)).shape)
        raise RuntimeError(
            f"Bad in-place call: input tensor size {[*self.shape]} and output tensor size {size} should match"
        )
    if not fits(smallest, mat1, mat2, self) or beta != 1:
        return torch.addmm(self, mat1, mat2, beta=beta, alpha=alpha, out=self)
    mat2 = dense(mat2)
    for part, factor in zip(self.split(ROWS), mat1.split(ROWS), strict=True):
        part.add_(product(dense(factor), mat2), alpha=alpha)
    return self
