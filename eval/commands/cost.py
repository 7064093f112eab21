"""`python -m eval cost`."""

from pathlib import Path

from eval.sweep.cost import described
from eval.sweep.progress import read_config


def run(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = ()) -> None:
    """Say how often a sweep samples to calibrate, each cell by itself and with what cells share made once.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
    """
    print(described(read_config(configfile, config)))
