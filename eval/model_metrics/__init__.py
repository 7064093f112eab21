"""Metrics of a cell's model. An entry is one number, its file's stem the column of the tables.

TITLE, UNIT          for people
HIGHER_IS_BETTER     direction; None where neither is better as such
TIMED                whether it is a wall-clock or memory reading, which no two runs share to the digit
CLOCKED              whether it comes from a cell's own timings, which not every cell has (eval/sweep/clocked.py)
compute(model)       Model → (value, quartiles or None)
"""

from dataclasses import dataclass, field
from typing import Any

Value = tuple[float, tuple[float, float] | None]


@dataclass(frozen=True)
class Model:
    """What model metrics see.

    Attributes:
        checkpoint: the pruned checkpoint's manifest.
        profile: record of `python -m eval profile`: layer errors, parameters, bytes, FLOPs, memory.
        latency: record of `python -m eval latency`; empty of a cell that is not timed.
    """

    checkpoint: dict[str, Any]
    profile: dict[str, Any]
    latency: dict[str, Any] = field(default_factory=dict)
