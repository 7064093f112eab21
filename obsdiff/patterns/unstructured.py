"""Any weight may go: the lowest scores of each row, or of all rows together."""

import torch
from torch import Tensor

KIND = "mask"
GROUPED = True


def keep(scores: Tensor, sparsity: float, group: str, start: int = 0) -> Tensor:
    """Remove round(sparsity · rows · columns) weights of the layer in all, ties in column order.

    Args:
        scores: (rows, b) float.
        sparsity: fraction to remove, in [0, 1).
        group: 'row' compares within a row (counts of rows differ by one weight at most); 'block' and 'layer'
            compare all the given scores.
        start: the first column's index; the share of the columns before it is taken as already removed.
    """
    rows, columns = scores.shape
    if group == "row":
        quota = torch.diff(torch.round(torch.arange(rows + 1, dtype=torch.float64) * columns * sparsity)).long()
        rank = scores.argsort(dim=1, stable=True).argsort(dim=1)
        return rank >= quota.to(scores.device)[:, None]
    removed = round(rows * (start + columns) * sparsity) - round(rows * start * sparsity)
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().argsort(stable=True)[:removed]] = False
    return mask.view_as(scores)
