"""Whole groups of a layer's input columns removed by Optimal Brain Surgeon, the cheapest first (OBS-Diff §3.3).

A group S costs tr(W_S ([H⁻¹]_SS)⁻¹ W_Sᵀ), and its removal moves all other columns. With [H⁻¹]_SS = LLᵀ,
G = L⁻¹ [H⁻¹]_S: and F = L⁻¹ W_Sᵀ the cost is ‖F‖², and

    H⁻¹ ← H⁻¹ − GᵀG        W ← W − FᵀG        WᵀW ← WᵀW − GᵀQ − QᵀG,  Q = FW − ½ FFᵀG.

These are the steps of a pivoted Cholesky factorisation, and can wait as they do in blocked algorithms (LAPACK's pstrf):
G and F of a block's removals are kept, a group's own rows are brought up to date when its turn comes, and the matrices
once a block, by matrix products. What costs need, the groups' own blocks of H⁻¹ and WᵀW, follows each removal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from obsdiff.solver import factors, ranking
from obsdiff.solver.products import mirror

BLOCK = 128
"""columns removed between two updates of the matrices"""


@dataclass(frozen=True)
class Problem:
    """One linear layer whose input columns are removed in groups.

    Attributes:
        weight: (rows, c) float32.
        factor: of its Hessian.
        first: index of the first group's first column.
    """

    weight: Tensor
    factor: factors.Factor
    first: int = 0


def eliminate(
    problems: Sequence[Problem], size: int, groups: int, count: int, compensate: bool = True, block: int = BLOCK
) -> tuple[list[Tensor], Tensor]:
    """Remove whole groups of columns, the same of every problem, one at a time.

    Costs are exact for a group as they are for one weight; after each removal all other columns move, those before it
    too, and so the final weights are the least-squares optimum of the columns that are left. Several problems (the
    image's and the text's output projection of joint attention) rank their groups together by reciprocal rank, ties
    by relative cost. Of groups that cost the same the first goes.

    Computed in float64. Every problem holds, all at once, H⁻¹, (c, c) float64, W, (rows, c) float64, for a moment
    twice, and less than 2 · block rows of c + rows; nothing else is large. The CPU waits for a GPU once a block.

    Args:
        problems: with the same groups at their own `first`.
        size: columns a group.
        groups: how many there are.
        count: how many are removed.
        compensate: False removes the groups of least cost at the outset, and moves nothing.
        block: columns removed between two updates of the matrices, at least one group; changes nothing but the time.

    Returns:
        The weights, (rows, c) float32 with the removed columns zero, and the kept groups, ascending int64.

    Raises:
        factors.FactorisationError: the inverse of a Hessian is not positive definite.
    """
    device = problems[0].weight.device
    if compensate:
        kept, weights = downdated(problems, size, groups, count, max(1, block // size))
    else:
        sums = [group_costs(live(p), inverse(p.factor), p.first, size, groups) for p in problems]
        kept = ranking.fused(sums).argsort(stable=True)[count:].sort().values
        weights = [live(p) for p in problems]
    dead = torch.ones(groups, dtype=torch.bool, device=device).index_fill_(0, kept, False).repeat_interleave(size)
    for weight, problem in zip(weights, problems, strict=True):
        weight[:, problem.first : problem.first + groups * size].masked_fill_(dead, 0.0)
    return [w.float() for w in weights], kept


def downdated(
    problems: Sequence[Problem], size: int, groups: int, count: int, step: int
) -> tuple[Tensor, list[Tensor]]:
    """The groups that stay and all weights, after `count` removals, `step` of them a block."""
    layers = [Layer(p, size, groups, step) for p in problems]
    left = torch.arange(groups, device=layers[0].w.device)
    for done in range(count):
        if done and done % step == 0:
            for layer in layers:
                layer.renew()
        at = ranking.lowest([layer.costs().index_select(0, left) for layer in layers])
        gone = left.index_select(0, at)
        for layer in layers:
            layer.remove(gone)
        later = torch.arange(len(left) - 1, device=left.device)
        left = left.index_select(0, later + (later >= at))
    for layer in layers:
        layer.move()
    return left, [layer.w for layer in layers]


class Layer:
    """A problem while its groups go: its matrices as they were when the block began, and the block's removals since.

    Attributes:
        w: (rows, c), of the block's beginning.
        h: (c, c), H⁻¹ of the block's beginning.
        g: (step · size, c), the rows of G of the block's removals so far.
        f: (step · size, rows), those of F.
        gone: (c,) bool, columns that were removed.
        inverses: (groups, size, size), [H⁻¹]_SS of every group as it is now.
        products: (groups, size, size), W_Sᵀ W_S likewise.
    """

    def __init__(self, problem: Problem, size: int, groups: int, step: int) -> None:
        self.w, self.h = live(problem), inverse(problem.factor)
        (rows, c), self.first, self.size, self.groups, self.step = self.w.shape, problem.first, size, groups, step
        self.g, self.f = self.w.new_empty(step * size, c), self.w.new_empty(step * size, rows)
        self.gone = torch.zeros(c, dtype=torch.bool, device=self.w.device)
        self.failed = torch.zeros((), dtype=torch.int32, device=self.w.device)
        self.begin()

    def begin(self) -> None:
        """Every group's own blocks anew from the matrices, so that rounding does not add up from block to block."""
        self.taken: list[Tensor] = []
        span, shape = slice(self.first, self.first + self.groups * self.size), (self.groups, self.size)
        if self.size == 1:
            self.inverses = self.h.diagonal()[span].clone().view(-1, 1, 1)
            norms = [
                part.square().sum(dim=0) for part in torch.tensor_split(self.w[:, span], self.groups // BLOCK + 1, 1)
            ]
            self.products = torch.cat(norms).view(-1, 1, 1)
        else:
            blocks = self.h[span, span].view(*shape, *shape).diagonal(dim1=0, dim2=2)
            self.inverses = blocks.permute(2, 0, 1).contiguous()
            weights = self.w[:, span].view(-1, *shape).permute(1, 2, 0)
            self.products = weights @ weights.mT

    def costs(self) -> Tensor:
        """(groups,); what it says of groups that are gone means nothing."""
        if self.size == 1:
            cost = (self.products / self.inverses).view(-1)
        else:
            lower, _ = torch.linalg.cholesky_ex(self.inverses)
            cost = torch.cholesky_solve(self.products, lower).diagonal(dim1=1, dim2=2).sum(dim=1)
        return cost.clamp_min(0.0)

    def remove(self, group: Tensor) -> None:
        """Take out a group, (1,) int64."""
        done, size = len(self.taken) * self.size, self.size
        columns = self.first + group * size + torch.arange(size, device=group.device)
        # of one column too, the rows of this w lie `rows` apart, as BLAS wants them
        h, w = self.h.index_select(0, columns), self.w.T.index_select(0, columns)
        g, f = self.g[:done], self.f[:done]
        if done:
            at = g.T.index_select(0, columns)
            h.addmm_(at, g, alpha=-1)
            w.addmm_(at, f, alpha=-1)
        h.masked_fill_(self.gone, 0.0)
        lower, failed = torch.linalg.cholesky_ex(h.index_select(1, columns))
        self.failed += failed
        new_g, new_f = (torch.linalg.solve_triangular(lower, rows, upper=False) for rows in (h, w))
        self.g[done : done + size], self.f[done : done + size] = new_g, new_f
        self.gone.index_fill_(0, columns, True)
        self.taken.append(columns)
        if len(self.taken) < self.step:
            # F W, of W as it was before this removal
            q = new_f @ self.w
            if done:
                q.addmm_(new_f @ f.T, g, alpha=-1)
            q.addmm_(new_f @ new_f.T, new_g, alpha=-0.5)
            self.follow(new_g, q)

    def follow(self, g: Tensor, q: Tensor) -> None:
        """Bring every group's own blocks up to date after a removal."""
        span = slice(self.first, self.first + self.groups * self.size)
        g, q = (rows[:, span].view(-1, self.groups, self.size).permute(1, 2, 0) for rows in (g, q))
        if self.size == 1:
            self.inverses.addcmul_(g, g, value=-1)
            self.products.addcmul_(g, q, value=-2)
        else:
            self.inverses.baddbmm_(g, g.mT, alpha=-1)
            self.products.baddbmm_(g, q.mT, alpha=-1).baddbmm_(q, g.mT, alpha=-1)

    def move(self) -> None:
        """Bring the weights up to date."""
        if self.taken:
            done = len(self.taken) * self.size
            if self.failed:
                raise factors.FactorisationError("the Hessian's inverse is not positive definite; give it more damping")
            self.w.addmm_(self.f[:done].T, self.g[:done], alpha=-1)
            self.w.index_fill_(1, torch.cat(self.taken), 0.0)

    def renew(self) -> None:
        """Bring weights and inverse up to date, and begin the next block."""
        self.move()
        self.h.addmm_(self.g.T, self.g, alpha=-1)
        self.begin()


def live(problem: Problem) -> Tensor:
    """(rows, c) float64, zero where the input always was."""
    return problem.weight.masked_fill(problem.factor.dead, 0.0).double()


def inverse(factor: factors.Factor, width: int = 512) -> Tensor:
    """(H + λI)⁻¹ = UᵀU, (c, c) float64, of its upper triangle's block rows; U is never a whole float64 matrix."""
    c = len(factor.upper)
    made = torch.zeros(c, c, dtype=torch.float64, device=factor.upper.device)
    for start in range(0, c, width):
        rows = factor.upper[start : start + width, start:].double()
        for at in range(0, c - start, width):
            made[start + at :, start + at :][:width].addmm_(rows[:, at : at + width].T, rows[:, at:])
    return mirror(made)


def group_costs(weight: Tensor, inverse: Tensor, first: int, size: int, groups: int) -> Tensor:
    """tr(W_S ([H⁻¹]_SS)⁻¹ W_Sᵀ) of every group S of `size` columns from `first` on: (groups,)."""
    span = slice(first, first + groups * size)
    if size == 1:
        return weight[:, span].square().sum(dim=0) / inverse.diagonal()[span]
    parts = weight[:, span].reshape(-1, groups, size).permute(1, 2, 0)
    blocks = torch.stack([inverse[i : i + size, i : i + size] for i in range(first, first + groups * size, size)])
    moved: Tensor = torch.linalg.solve(blocks, parts)
    return (moved * parts).sum(dim=(1, 2))
