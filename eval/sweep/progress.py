"""How far a sweep is, from the files on disk: a look that disturbs nothing and asks no running job."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from eval.sweep.cells import Cell, named
from eval.sweep.config import read_sweep, results_of
from eval.sweep.reading import read_mapping, said
from obsdiff.errors import SpecError

CONFIG = Path("config/config.yaml")
STAGES = {
    "prune": "checkpoint/manifest.json",
    "generate": "images/manifest.json",
    "profile": "profile.json",
    "measure": "metrics.json",
}
"""rule → the file of a cell's folder that ends it"""


def read_config(files: Iterable[Path], values: Sequence[str]) -> dict[str, Any]:
    """The configuration as snakemake merges it: config/config.yaml, files, then KEY=VALUE.

    Raises:
        SpecError: a file is not there or cannot be read, or a value has no key.
    """
    from snakemake.utils import update_config

    config: dict[str, Any] = {}
    for path in (CONFIG, *files):
        if not path.is_file():
            raise SpecError(f"configfile: {str(path)!r} is not a file; give one as for `snakemake --configfile`")
        update_config(config, read_mapping(path))
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise SpecError(f"config: {value!r} is not KEY=VALUE")
        try:
            update_config(config, {key: yaml.safe_load(text)})
        except yaml.YAMLError as error:
            raise SpecError(f"config: {value!r} is not YAML ({said(error)})") from None
    return config


def overview(config: Mapping[str, Any]) -> str:
    """Finished cells, one line per stage and one per unfinished job, the most recent first."""
    sweep, results = read_sweep(config, files=False), Path(results_of(config))
    cells = [(cell, results / "cells" / cell.path) for cell in sweep.cells]
    done = {stage: [cell for cell, folder in cells if (folder / file).is_file()] for stage, file in STAGES.items()}
    total = len(cells)
    lines = [f"sweep {config['name']}: {len(done['measure'])} of {total} cells done"]
    lines += [f"  {stage:<9}{len(found):>5} of {total}" for stage, found in done.items()]
    begun = []
    for cell, folder in cells:
        for stage, file in STAGES.items():
            if (folder / file).is_file():
                continue
            for log in sorted((results / "logs" / stage / cell.path).parent.glob(f"seed-{cell.seed}.*log")):
                begun.append(
                    (log.stat().st_mtime, f"{stage} {title(cell)}{drawn(stage, folder, sweep.models[cell.model])}", log)
                )
    if begun:
        lines.append("unfinished (running, or stopped; how long ago the log was written):")
    now = time.time()
    for when, what, log in sorted(begun, reverse=True):
        lines.append(f"  {what}, {ago(now - when)}: {last_line(log)}")
    return "\n".join(lines)


def title(cell: Cell) -> str:
    return f"{cell.model} {named(cell)}"


def drawn(stage: str, folder: Path, model: Mapping[str, Any]) -> str:
    """How many of a cell's images are there, while they are drawn."""
    if stage != "generate":
        return ""
    return f" ({len(list((folder / 'images').glob('*.png')))} of {model['evaluation']['count']} images)"


def ago(seconds: float) -> str:
    return f"{max(seconds, 0):.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"


def last_line(log: Path) -> str:
    """The last line that says something, of a progress bar its last state."""
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line), "nothing yet")
