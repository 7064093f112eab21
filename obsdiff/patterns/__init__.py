"""Sparsity patterns: which weights may be removed together.

A pattern is one file. It states TRAITS; a pattern of masks also turns scores into a mask (keep).
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol

from obsdiff import registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the library and the suite must know of a pattern without importing it.

    Attributes:
        kind: `mask` sets weights to zero; `structured` removes heads and neurons.
        grouped: whether the comparison group (block, row, layer) can be chosen.
        value: a regular expression of the config values that this file serves instead of its stem; its named groups
            are the integer arguments of keep().
        form: those values in words.
        order: names of two arguments: the first of every second weights are kept.
        ranked: whether keep() keeps those of highest score, ties in column order.
        removes: the kinds of sites that a structured pattern prunes.
    """

    kind: Literal["mask", "structured"]
    grouped: bool = False
    value: str | None = None
    form: str = ""
    order: tuple[str, str] | None = None
    ranked: bool = False
    removes: tuple[Literal["heads", "neurons"], ...] = ()


class Masks(Protocol):
    """A pattern of masks. One with named groups in `value` takes them as keyword arguments."""

    def keep(self, scores: "Tensor", sparsity: float, group: str, start: int = 0) -> "Tensor":
        """The bool mask of the weights that stay, with exact counts over the layer.

        Args:
            scores: (rows, b) float32, the lowest removed first.
            start: index of their first column in the layer.
        """


@dataclass(frozen=True)
class Pattern:
    """A config value, resolved: the entry that serves it, its traits and its arguments."""

    entry: str
    traits: Traits
    arguments: dict[str, int]

    @property
    def structured(self) -> bool:
        return self.traits.kind == "structured"

    @property
    def sparsity(self) -> float | None:
        """The only sparsity it has, where it has only one."""
        if self.traits.order is None:
            return None
        kept, of = (self.arguments[name] for name in self.traits.order)
        return 1 - kept / of

    @property
    def stay(self) -> int | None:
        """So many of every `multiple` columns stay, those of highest score; None where keep() decides otherwise."""
        return self.arguments[self.traits.order[0]] if self.traits.order and self.traits.ranked else None

    @property
    def multiple(self) -> int:
        """Widths must be a multiple of this; columns are decided so many at a time (1: any width)."""
        return self.arguments[self.traits.order[1]] if self.traits.order else 1


def canonical(value: str) -> str:
    """`2of4`, as folders are named, is `2:4`."""
    return re.sub(r"^(\d+)of(\d+)$", r"\1:\2", str(value))


@cache
def resolve(value: str) -> Pattern:
    """The pattern of a config value.

    Raises:
        UnknownEntry: no entry serves it.
    """
    forms = []
    for name in registry.names(__name__):
        traits = registry.traits(__name__, name, Traits)
        if traits.value is None:
            if name == value:
                return Pattern(name, traits, {})
            continue
        forms.append(traits.form)
        if match := re.fullmatch(traits.value, str(value)):
            arguments = {k: int(v) for k, v in match.groupdict().items()}
            found = Pattern(name, traits, arguments)
            if found.sparsity is not None and 0 < found.sparsity < 1:
                return found
    plain = [n for n in registry.names(__name__) if registry.traits(__name__, n, Traits).value is None]
    raise registry.unknown("pattern", str(value), [*plain, *forms])
