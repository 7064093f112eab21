"""Pruning methods: each decides which weights, heads or neurons are removed.

A method is one file. It states TRAITS; if it does not compensate, it also scores weights (score) or channels
(score_columns). A compensating method names a solver; heads and neurons are then removed by exact elimination. A method
whose pruned weights are given does neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from obsdiff import registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from obsdiff.solver.statistics import Input


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the library and the suite must know of a method without importing it.

    Attributes:
        kinds: the kinds of patterns it serves.
        statistic: what calibration sums over a layer's input; None if the method needs no calibration.
        weighted: whether the timestep weighting enters that statistic.
        solver: how masks are found and the remaining weights updated (obsdiff/solving.py): the sweep, ADMM, or the
            better of both; None if the method does not compensate, and scores weights instead.
        group: the weights compared with each other by default.
        defaults: other defaults of PruneSpec's fields.
        structured: those that are different where heads and neurons are removed.
        prunes: False for the dense reference only.
        given: whether the pruned weights are read from PruneSpec.weights.
    """

    kinds: tuple[Literal["mask", "structured"], ...] = ("mask",)
    statistic: Literal["moments", "hessian"] | None = None
    weighted: bool = False
    solver: Literal["sweep", "admm", "best"] | None = None
    group: Literal["block", "row", "layer"] = "layer"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    structured: Mapping[str, Any] = field(default_factory=dict)
    prunes: bool = True
    given: bool = False

    @property
    def compensates(self) -> bool:
        """Whether the remaining weights are updated."""
        return self.solver is not None

    def uses(self, axis: str) -> bool:
        """Whether `weighting` or `packages`, axes of the grid, change what the method does."""
        return self.weighted if axis == "weighting" else self.statistic is not None


class Scores(Protocol):
    """A method for masks that finds them, and does not compensate."""

    def score(self, weight: "Tensor", input: "Input | None", generator: "torch.Generator") -> "Tensor":
        """Scores of weight's shape, the lowest removed first.

        Args:
            weight: (rows, columns) float32.
            input: what calibration summed, if the method has a statistic.
            generator: seeded.
        """


class RefinesMask(Protocol):
    """A scoring method may improve the mask."""

    def refine(self, weight: "Tensor", keep: "Tensor", input: "Input", scores: "Tensor", multiple: int) -> "Tensor":
        """A mask that keeps as many weights (of every `multiple` columns, if that is above 1)."""


class ScoresColumns(Protocol):
    """A method for heads and neurons that does not compensate."""

    def score_columns(
        self, columns: "Tensor", producers: "Tensor", input: "Input | None", generator: "torch.Generator"
    ) -> "Tensor":
        """(channels,) scores; a head's or neuron's score is the sum over its channels.

        Args:
            columns: (rows, channels), the columns of the layer that reads the channels.
            producers: (channels, fan-in), all weights that make a channel.
            input: of those channels.
        """


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)
