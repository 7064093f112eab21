"""`python -m eval check`."""

from pathlib import Path

from eval.sweep.check import items
from eval.sweep.progress import read_config
from obsdiff.errors import SpecError


def run(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = ()) -> None:
    """Say whether a sweep can run here: checkpoints, data, networks, devices and disk, one line each.

    The exit status is 0 where nothing is missing, else 2.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
    """
    lost = 0
    for item in items(read_config(configfile, config)):
        print(f"{'ok     ' if item.ok else 'missing'}  {item.text}", flush=True)
        lost += not item.ok
    if lost:
        raise SpecError(f"{lost} things are missing; their lines say what to do")
