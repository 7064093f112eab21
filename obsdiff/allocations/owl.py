"""Layers with more outliers keep more (OWL, Yin et al. 2024, arXiv 2310.05175), the layer as the unit.

The measure is the share of a layer's Wanda scores |w|·‖x‖ that exceed 5 times their mean. Sparsities lie within
±0.08 of the asked one, linear in the measure, and keep the total of weights.
"""

import torch
from torch import Tensor

from obsdiff.allocations import Traits
from obsdiff.solver.statistics import Input

TRAITS = Traits(statistic="moments")
OUTLIER = 5.0
SPREAD = 0.08
MOST = 0.99


def measure(weight: Tensor, input: Input, sparsity: float, importance: float) -> list[float]:
    scores = weight.abs() * input.squared_norm.sqrt()
    return [float((scores > OUTLIER * scores.mean()).float().mean())]


def allocate(measures: Tensor, sizes: Tensor, sparsity: float) -> Tensor:
    measures = measures[:, 0]
    spread = float(measures.max() - measures.min())
    kept_more = (measures - measures.min()) / spread * 2 * SPREAD if spread > 0 else torch.zeros_like(measures)

    def clipped(shift: float) -> Tensor:
        return (sparsity - kept_more + shift).clamp(0.0, max(MOST, sparsity))

    low, high = -1.0, 1.0 + 2 * SPREAD
    for _ in range(60):
        middle = (low + high) / 2
        below = float((sizes * clipped(middle)).sum()) < sparsity * float(sizes.sum())
        low, high = (middle, high) if below else (low, middle)
    return clipped(high)
