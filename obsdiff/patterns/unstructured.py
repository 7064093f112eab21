"""Any weight may go: the lowest scores of each row, or of all rows together."""

import numpy as np
import torch
from torch import Tensor

from obsdiff.patterns import Traits

TRAITS = Traits(kind="mask", grouped=True)


def keep(scores: Tensor, sparsity: float, group: str, start: int = 0) -> Tensor:
    """Remove round(sparsity · rows · columns) weights of the layer in all, ties in column order.

    Args:
        scores: (rows, b) float32; need not be contiguous.
        sparsity: fraction to remove, in [0, 1).
        group: 'row' compares within a row (counts of rows differ by one weight at most); 'block' and 'layer'
            compare all the given scores.
        start: the first column's index; the share of the columns before it is taken as already removed.
    """
    rows, columns = scores.shape
    # a sort never makes the CPU wait for a GPU, which the search for ties would
    selects = scores.device.type == "cpu"
    if group == "row":
        counts = torch.diff(torch.round(torch.arange(rows + 1, dtype=torch.float64) * columns * sparsity)).long()
        return ~(
            lowest_of_rows(scores, counts) if selects else sorted_lowest(scores, counts.to(scores.device)[:, None])
        )
    count = round(rows * (start + columns) * sparsity) - round(rows * start * sparsity)
    return ~(lowest(scores, count) if selects else sorted_lowest(scores.reshape(1, -1), count).view(rows, columns))


def lowest(scores: Tensor, count: int) -> Tensor:
    """bool, True for the `count` lowest of (rows, b) scores, ties in row-major order: a selection instead of a sort."""
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # the value does not depend on the order, and a view of the other layout needs no copy
    flat = (scores if scores.is_contiguous() else scores.T).reshape(-1)
    value = float(np.partition(flat.numpy(), count - 1)[count - 1])
    found = scores <= value
    surplus = int(torch.count_nonzero(found)) - count
    if surplus:
        late = (scores == value).nonzero()[-surplus:]
        found[late[:, 0], late[:, 1]] = False
    return found


def lowest_of_rows(scores: Tensor, counts: Tensor) -> Tensor:
    """bool, True for the counts[i] lowest of every row i of (rows, b) scores, ties in column order."""
    values = torch.full((len(scores), 1), -torch.inf, dtype=scores.dtype)
    for count in set(counts.tolist()):  # two at most
        if count:
            rows = counts == count
            values[rows, 0] = torch.from_numpy(np.partition(scores[rows].numpy(), count - 1, axis=1)[:, count - 1])
    found = scores <= values
    surplus = found.sum(dim=1) - counts
    rows = surplus.nonzero()[:, 0]
    if len(rows):
        ties = scores[rows] == values[rows]
        late = ties.cumsum(dim=1) > (ties.sum(dim=1) - surplus[rows])[:, None]
        found[rows] &= ~(ties & late)
    return found


def sorted_lowest(scores: Tensor, counts: Tensor | int) -> Tensor:
    """lowest_of_rows() by a stable sort, on any device; counts: (rows, 1), or one number for all rows."""
    order = scores.argsort(dim=1, stable=True)
    first = torch.arange(scores.shape[1], device=scores.device) < counts
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, first.expand_as(order))
