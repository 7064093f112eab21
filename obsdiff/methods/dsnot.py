"""Dynamic Sparse no Training (Zhang et al. 2024): kept and pruned weights swapped until a row's mean error is gone.

With D = W ⊙ E[x] a row's error is e = Σ D over its pruned weights. While |e| exceeds the threshold, up to 50 times: the
pruned weight whose D/var(x) is the largest (e > 0) or the most negative (e < 0) grows back, and the kept one of lowest
Wanda score whose D has the sign that e lacks goes (N:M: the one of lowest score in the same group). None is updated.

Unlike its authors' code (https://github.com/zyxxmu/DSnoT):

- A swap that does not lower |e| is not made and ends the row; theirs makes it, of N:M unless e would change sign. A
  weight may be moved again; theirs moves each once.
- The mask at the start is by w²/[H⁻¹]_jj, as in OBS-Diff; in their `sparsegpt` start H⁻¹ is of the columns from j on.
- E[x] and var(x) are weighted by timestep, and var(x) is over all tokens; theirs is the mean of each sample's variance.
- The threshold, 0.1 on errors summed over a sample of 2048 tokens, is per token, so that it does not depend on a
  image's size.
- A row that has no weight left with the sign it needs ends there; theirs goes on with other weights.
- Every layer is refined; theirs leaves a language model's MLPs at the first mask by default.
"""

import torch
from torch import Tensor

from obsdiff.methods import Traits
from obsdiff.solver.statistics import Input

TRAITS = Traits(statistic="hessian", weighted=True, group="row")

SWAPS = 50
# the published 0.1 is for errors summed over samples of 2048 tokens; E[x] is a mean over tokens
THRESHOLD = 0.1 / 2048


def score(weight: Tensor, input: Input | None, generator: torch.Generator) -> Tensor:
    assert input is not None
    upper = input.factor.upper
    saliency = weight.square() / upper.square().sum(dim=0)  # [H⁻¹]_jj = ‖U_:,j‖²
    return saliency.masked_fill(input.factor.dead, 0.0)


def refine(weight: Tensor, keep: Tensor, input: Input, scores: Tensor, multiple: int) -> Tensor:
    """Swap weights of every row, up to 50 times while its |e| exceeds the threshold.

    Args:
        weight, keep, scores: (rows, columns).
        multiple: M of N:M, where the partner is the kept weight of lowest score in the same M columns; else 1.
    """
    keep = keep.clone()
    rows = torch.arange(weight.shape[0], device=weight.device)
    change = weight * input.mean
    pull = change / input.variance.clamp_min(torch.finfo(torch.float32).tiny)
    wanda = weight.abs() * input.squared_norm.sqrt()
    error = (change * ~keep).sum(dim=1)
    active = error.abs() > THRESHOLD
    infinity = float("inf")
    for _ in range(SWAPS):
        if not active.any():
            break
        sign = error.sign()[:, None]
        grown = (pull * sign).masked_fill(keep, -infinity).argmax(dim=1)
        if multiple > 1:
            same = torch.arange(weight.shape[1], device=weight.device) // multiple == (grown // multiple)[:, None]
            price = scores.masked_fill(~(keep & same), infinity)
        else:
            price = wanda.masked_fill(~(keep & (change * sign < 0)), infinity)
        pruned = price.argmin(dim=1)
        after = error - change[rows, grown] + change[rows, pruned]
        able = active & torch.isfinite(price[rows, pruned]) & (pull[rows, grown] * sign[:, 0] > 0)
        # a swap that does not lower the error would be undone by the next one
        active = able & (after.abs() < error.abs())
        keep[rows[active], grown[active]] = True
        keep[rows[active], pruned[active]] = False
        error = torch.where(active, after, error)
        active &= error.abs() > THRESHOLD
    return keep
