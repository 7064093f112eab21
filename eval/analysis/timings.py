"""Which times of finished cells are the dense model's, and what zeros took on dense kernels."""

from collections.abc import Sequence
from typing import Any

from eval.results import CellResult
from eval.sweep.clocked import DENSE, clocked_names

AS_DENSE = "as dense"


def as_dense(results: Sequence[CellResult], name: str) -> bool:
    """Whether a metric of a configuration is the dense model's, as none of its cells was timed."""
    return name in clocked_names() and all(stands_with_dense(result) for result in results)


def stands_with_dense(result: CellResult) -> bool:
    return bool(result.latency.get("of") == DENSE)


def zeros_of(results: Sequence[CellResult]) -> dict[str, Any] | None:
    """What was measured of zeros on the dense model: {share, and what profile/latency.py returns of them}."""
    found = (result.latency.get("zeros") for result in results)
    return next((zeros for zeros in found if zeros), None)
