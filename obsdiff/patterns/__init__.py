"""Sparsity patterns. An entry states what it is in literal constants.

KIND      'mask': weights become zeros where they stand; 'structured': heads and neurons are removed for real
GROUPED   mask: whether the comparison group (block, row, layer) is free
VALUE     optional: a regular expression of the config values this entry serves in place of its stem; its named
          groups are the integer arguments of keep(). With it go
FORM      those values in words, and
ORDER     names of two arguments as `first/second`: first of second weights are kept
RANKED    optional: keep() has the first of every second weights of highest score stay, ties in column order
REMOVES   structured: which of a model's sites it prunes, 'heads' and 'neurons'
keep(scores, sparsity, group, start, **arguments)
          mask: scores (rows, b), the lowest removed first, `start` the index of their first column in the layer →
          bool mask of the weights that stay, exact over the layer
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from obsdiff import registry


@dataclass(frozen=True)
class Pattern:
    """A config value, resolved: the entry that serves it, its constants and its arguments."""

    entry: str
    facts: Mapping[str, Any]
    arguments: dict[str, int]

    @property
    def structured(self) -> bool:
        return bool(self.facts["KIND"] == "structured")

    @property
    def sparsity(self) -> float | None:
        """The only sparsity it has, where it has only one."""
        if "ORDER" not in self.facts:
            return None
        kept, of = (self.arguments[name] for name in self.facts["ORDER"].split("/"))
        return 1 - kept / of

    @property
    def stay(self) -> int | None:
        """So many of every `multiple` columns stay, those of highest score; None where keep() decides otherwise."""
        return self.arguments[self.facts["ORDER"].split("/")[0]] if self.facts.get("RANKED") else None

    @property
    def multiple(self) -> int:
        """Widths must be a multiple of this; columns are decided so many at a time (1: any width)."""
        return self.arguments.get(self.facts.get("ORDER", "/").split("/")[1], 1)


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
        facts = registry.constants(__name__, name)
        if "VALUE" not in facts:
            if name == value:
                return Pattern(name, facts, {})
            continue
        forms.append(facts["FORM"])
        if match := re.fullmatch(facts["VALUE"], str(value)):
            arguments = {k: int(v) for k, v in match.groupdict().items()}
            found = Pattern(name, facts, arguments)
            if found.sparsity is not None and 0 < found.sparsity < 1:
                return found
    plain = [n for n in registry.names(__name__) if "VALUE" not in registry.constants(__name__, n)]
    raise registry.unknown("pattern", str(value), [*plain, *forms])
