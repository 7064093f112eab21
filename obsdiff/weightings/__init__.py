"""Timestep weightings: how much each denoising step counts in a layer's statistic (paper, section 3.2).

A weighting is one file that defines alphas(). Only the ratios of α matter: scaling all of them changes no mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from obsdiff import registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the suite must know of a weighting without importing it.

    Attributes:
        ranged: whether alphas() depends on low and high.
        table: whether alphas() takes the spec's `alphas` as a fourth argument.
    """

    ranged: bool = True
    table: bool = False


class Weighting(Protocol):
    """A file of this folder. One that sets `table` takes a fourth argument, the spec's `alphas`."""

    def alphas(self, steps: int, low: float, high: float, /) -> "Tensor":
        """(steps,) float64, positive, the first (noisiest) step first; a single step has its first step's value."""


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)


def alphas(name: str, steps: int, low: float, high: float, table: Sequence[float] = ()) -> "Tensor":
    """A weighting's α, (steps,) float64, the first step first.

    Args:
        low, high: the range of α, for weightings with `ranged`.
        table: the spec's `alphas`, for weightings with `table`.

    Raises:
        UnknownEntry: there is no such weighting.
    """
    entry = registry.load(__name__, name)
    if traits(name).table:
        found = entry.alphas(steps, low, high, tuple(table))
    else:
        found = cast(Weighting, entry).alphas(steps, low, high)
    return cast("Tensor", found)
