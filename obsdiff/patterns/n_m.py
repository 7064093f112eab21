"""N:M: N weights stay of every M consecutive ones in a row (`2:4`, `4:8`, `1:4`), 0 < N < M."""

import torch
from torch import Tensor

from obsdiff.patterns import Traits

TRAITS = Traits(
    kind="mask", value=r"(?P<n>[1-9]\d*):(?P<m>[1-9]\d*)", form="N:M such as 2:4", order=("n", "m"), ranked=True
)


def keep(scores: Tensor, sparsity: float, group: str, start: int = 0, *, n: int, m: int) -> Tensor:
    """Keep the n highest of every m columns of a row, ties in column order.

    A weight's rank is the number of weights in its group that go before it, counted by comparing every pair: for the
    small groups that there are, a fraction of the time of a sort.

    Args:
        scores: (rows, b) float, b and start multiples of m; need not be contiguous, and the mask has their layout.
        sparsity, group: given by n and m.
    """
    rows, columns = scores.shape
    grouped = scores.reshape(rows, columns // m, m).movedim(-1, 0).contiguous()
    rank = torch.zeros(grouped.shape, dtype=torch.int32, device=scores.device)
    for j in range(1, m):
        # of an equal pair the first goes before the second
        before = grouped[:j] <= grouped[j]
        rank[j] += before.sum(dim=0, dtype=torch.int32)
        rank[:j] += ~before
    return (rank >= m - n).movedim(0, -1).reshape(rows, columns)
