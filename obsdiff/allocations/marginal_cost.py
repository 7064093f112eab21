"""Every layer's next weight costs the same: sparsities of equal marginal error, within ±0.07 of the asked one.

A layer's cost is its error tr(ΔW H ΔWᵀ) after the column sweep, times what the layer's errors do to the denoiser's
output if the spec asks for sensitivities. It is computed on the dense model at three sparsities, the asked one and the
ends of its range, and is taken to be log-linear between them. The total of weights is kept.
"""

import torch
from torch import Tensor

from obsdiff import registry
from obsdiff.allocations import Traits
from obsdiff.solver import obs
from obsdiff.solver.statistics import Input

TRAITS = Traits(statistic="hessian")
SPREAD = 0.07
MOST = 0.99
STEPS = 100
"""between the ends of the range"""
BLOCK = 128


def ends(sparsity: float) -> tuple[float, float, float]:
    """The sparsities at which a cost is computed."""
    return max(0.0, sparsity - SPREAD), sparsity, max(sparsity, min(MOST, sparsity + SPREAD))


def measure(weight: Tensor, input: Input, sparsity: float, importance: float) -> list[float]:
    """The layer's cost at ends(sparsity)."""
    assert input.hessian is not None
    pattern = registry.load("obsdiff.patterns", "unstructured")
    costs = []
    for share in ends(sparsity):

        def select(scores: Tensor, start: int, share: float = share) -> Tensor:
            mask: Tensor = pattern.keep(scores, share, "block", start)
            return mask

        solved = obs.sweep(weight, input.factor, select, BLOCK)
        error = obs.energy(solved.weight - weight, input.hessian) if solved.error is None else solved.error
        costs.append(max(0.0, importance * error))
    return costs


def allocate(measures: Tensor, sizes: Tensor, sparsity: float) -> Tensor:
    low, _, high = ends(sparsity)
    grid = torch.linspace(low, high, STEPS + 1, dtype=torch.float64)
    costs = curves(measures, torch.tensor(ends(sparsity), dtype=torch.float64), grid)

    def at(price: float) -> Tensor:
        # what a layer pays for its error and gets for its removed weights
        return grid[(costs - price * sizes[:, None] * grid).argmin(dim=1)]

    cheap, dear = 0.0, 1.0
    while float((sizes * at(dear)).sum()) < sparsity * float(sizes.sum()) and dear < 1e300:
        dear *= 4
    for _ in range(100):
        middle = (cheap + dear) / 2
        below = float((sizes * at(middle)).sum()) < sparsity * float(sizes.sum())
        cheap, dear = (middle, dear) if below else (cheap, middle)
    return exact(at(cheap), at(dear), sizes, sparsity)


def curves(measures: Tensor, known: Tensor, grid: Tensor) -> Tensor:
    """(n, k) costs at the k known sparsities, ascending → (n, len(grid)), log-linear between them."""
    logs = measures.clamp_min(torch.finfo(torch.float64).tiny).log()
    right = torch.bucketize(grid, known).clamp(1, len(known) - 1)
    left = right - 1
    width = (known[right] - known[left]).clamp_min(1e-12)
    part = ((grid - known[left]) / width).clamp(0.0, 1.0)
    return (logs[:, left] * (1 - part) + logs[:, right] * part).exp()


def exact(below: Tensor, above: Tensor, sizes: Tensor, sparsity: float) -> Tensor:
    """Between two allocations, one with too few removed weights and one with enough, that of the exact total."""
    wanted = sparsity * float(sizes.sum())
    few, many = float((sizes * below).sum()), float((sizes * above).sum())
    part = (wanted - few) / (many - few) if many > few else 1.0
    return below + (above - below) * part
