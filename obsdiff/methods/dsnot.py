"""Dynamic Sparse no Training (Zhang et al. 2024): kept and pruned weights swapped until a row's mean error is gone.

With D = W ⊙ E[x] a row's error is e = Σ D over its pruned weights. While |e| exceeds the threshold, up to 50 times: of
the weights pruned at the start, the one whose D/var(x) is the largest (e > 0) or the most negative (e < 0) grows
back; of those kept at the start, the one of lowest Wanda score whose D has the sign that e lacks goes. N:M: the one of
lowest score in the same group goes, whatever its sign, and a row ends before its error would change sign. A weight is
moved once at most, and none is updated.

As its authors' code (https://github.com/zyxxmu/DSnoT) does it, but for the following:

- The mask at the start is by w²/[H⁻¹]_jj, as in OBS-Diff; in their `sparsegpt` start H⁻¹ is of the columns from j on.
- E[x] and var(x) are weighted by timestep, and var(x) is over all tokens; theirs is the mean of each sample's variance.
- The threshold, 0.1 on errors summed over a sample of 2048 tokens, is per token, so that it does not depend on a
  picture's size.
- A row that has no weight left with the sign it needs ends there, and one that has ended stays as it is. Theirs then
  takes weights of the other sign, or some that are kept already, and the number that is kept changes.
- Every layer is refined; theirs leaves a language model's MLPs at the first mask by default.

Its 50 swaps are made for rows of thousands of weights: on narrow rows they replace a good part of the mask, overshoot
the error again and again, and cost more than they gain.
"""

import torch
from torch import Tensor

from obsdiff.statistics import Input

KINDS = ("mask",)
STATISTIC = "hessian"
WEIGHTED = True
COMPENSATES = False
GROUP = "row"
PRUNES = True

SWAPS = 50
THRESHOLD = 0.1 / 2048
INFINITY = float("inf")


def score(weight: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    assert input is not None
    upper = input.factor.upper
    saliency = weight.square() / upper.square().sum(dim=0)  # [H⁻¹]_jj = ‖U_:,j‖²
    return saliency.masked_fill(input.factor.dead, 0.0)


def refine(weight: Tensor, keep: Tensor, input: Input, scores: Tensor, multiple: int) -> Tensor:
    """Swap weights of every row, up to 50 times while its |e| exceeds the threshold.

    Args:
        weight, keep, scores: (rows, columns).
        multiple: M of N:M; else 1.
    """
    rows, columns = (torch.arange(size, device=weight.device) for size in weight.shape)
    change = weight * input.mean
    pull = change / input.variance.clamp_min(torch.finfo(torch.float32).tiny)
    price = scores if multiple > 1 else weight.abs() * input.squared_norm.sqrt()
    gone, stay = ~keep, keep.clone()  # what may still grow, and what may still go
    keep, error = keep.clone(), (change * ~keep).sum(dim=1)
    start, active = error.sign(), torch.ones_like(error, dtype=torch.bool)
    for _ in range(SWAPS):
        active &= error.abs() > THRESHOLD
        sign = error.sign()[:, None]
        grown = (pull * sign).masked_fill(~gone, -INFINITY).argmax(dim=1)
        partners = columns // multiple == (grown // multiple)[:, None] if multiple > 1 else change * sign < 0
        offers = price.masked_fill(~(stay & partners), INFINITY)
        pruned = offers.argmin(dim=1)
        after = error + change[rows, pruned] - change[rows, grown]
        active &= torch.isfinite(offers[rows, pruned]) & gone[rows, grown] & (change[rows, grown] * sign[:, 0] > 0)
        if multiple > 1:
            active &= after.sign() == start
        if not active.any():
            break
        moved = rows[active]
        keep[moved, grown[active]] = True
        keep[moved, pruned[active]] = False
        gone[moved, grown[active]] = False
        stay[moved, pruned[active]] = False
        error = torch.where(active, after, error)
    return keep
