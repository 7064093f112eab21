"""How a sparsity is allocated to layers (or to sites of structured pruning) at the same total.

An allocation is one file that defines allocate(), and measure() if it states a statistic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from obsdiff import registry

if TYPE_CHECKING:
    from torch import Tensor

    from obsdiff.solver.statistics import Input


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the library must know of an allocation without importing it.

    Attributes:
        statistic: what a sampling run of the dense model must sum over each layer's input first.
    """

    statistic: Literal["moments", "hessian"] | None = None


class Allocation(Protocol):
    """A file of this folder."""

    def allocate(self, measures: "Tensor", sizes: "Tensor", sparsity: float) -> "Tensor":
        """(n,) float64 sparsities that remove sparsity · Σ sizes weights.

        Args:
            measures: (n, k) float64, of measure(); empty without a statistic.
            sizes: (n,) float64, in weights.
        """


class Measures(Protocol):
    """An allocation with a statistic."""

    def measure(self, weight: "Tensor", input: "Input", sparsity: float, importance: float) -> "Sequence[float]":
        """k numbers per layer, whose meaning is the entry's own.

        Args:
            weight: (rows, columns) float32, its rows weighed by their sensitivities if the spec has them.
            sparsity: the one asked for.
            importance: what the layer's squared error counts beside others'; 1 without sensitivities.
        """


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)
