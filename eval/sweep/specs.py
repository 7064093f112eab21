"""A cell's PruneSpec, from the config and its axes. Snakemake's wildcards serve as cells."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from eval.sweep.cells import Cell
from eval.sweep.config import Sweep, is_tiny
from eval.sweep.overrides import relevant
from eval.sweep.tiny import LAYERS
from obsdiff.spec import PruneSpec


def axes_of(cell: Cell) -> dict[str, Any]:
    """The fields of PruneSpec that are axes of the grid."""
    own = {key: getattr(cell, key) for key in ("method", "pattern", "weighting", "packages")}
    return own | {"sparsity": float(cell.sparsity)}


def pruning_of(cell: Cell, sweep: Sweep, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config's fields of PruneSpec, with the cell's options, as far as they change what this cell's method does."""
    own = {key: value for key, value in config["pruning"].items() if not (is_tiny(config) and key in LAYERS)}
    return relevant(own | sweep.options[cell.options], axes_of(cell))


def spec_of(cell: Cell, sweep: Sweep, config: Mapping[str, Any]) -> PruneSpec:
    """The spec of a cell without its prompts."""
    return made(json.dumps({**pruning_of(cell, sweep, config), **axes_of(cell)}))


@cache
def made(text: str) -> PruneSpec:
    """The spec of the fields in a JSON text; a run of the DAG asks for every cell's again and again."""
    return PruneSpec(**json.loads(text))
