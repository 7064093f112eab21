"""`python -m eval progress`."""

from pathlib import Path

from eval.sweep.progress import overview, read_config


def run(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = ()) -> None:
    """Print how far a sweep is: cells by stage, and the last line of every job that has not ended.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
    """
    print(overview(read_config(configfile, config)))
