"""`obsdiff inspect`."""

import json
from pathlib import Path
from typing import Annotated

import tyro


def run(checkpoint: Annotated[Path, tyro.conf.Positional], as_json: bool = False) -> None:
    """Print the layers of a pruned checkpoint, after checking it against its hash.

    Args:
        checkpoint: folder that `prune` wrote.
        as_json: its manifest.
    """
    from obsdiff.checkpoints.checkpoint import read_pruned
    from obsdiff.checkpoints.inspection import describe

    pruned = read_pruned(checkpoint)
    print(json.dumps(pruned.manifest.as_dict(), indent=1) if as_json else describe(checkpoint, pruned.manifest))
