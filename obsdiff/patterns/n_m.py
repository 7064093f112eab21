"""N:M: N weights stay of every M consecutive ones in a row (`2:4`, `4:8`, `1:4`), 0 < N < M."""

from torch import Tensor

KIND = "mask"
GROUPED = False
VALUE = r"(?P<n>[1-9]\d*):(?P<m>[1-9]\d*)"
FORM = "N:M such as 2:4"
ORDER = "n/m"


def keep(scores: Tensor, sparsity: float, group: str, start: int = 0, *, n: int, m: int) -> Tensor:
    """Keep the n highest of every m columns of a row, ties in column order.

    Args:
        scores: (rows, b) float, b and start multiples of m.
        sparsity, group: given by n and m.
    """
    rows, columns = scores.shape
    grouped = scores.reshape(rows, columns // m, m)
    rank = grouped.argsort(dim=-1, stable=True).argsort(dim=-1)
    return (rank >= m - n).view(rows, columns)
