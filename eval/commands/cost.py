"""`python -m eval cost`."""

from pathlib import Path

from eval.sweep import cost, hours
from eval.sweep.progress import read_config


def run(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = (), rate: str | None = None) -> None:
    """Say how often a sweep samples to calibrate, each cell by itself and with what cells share made once.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
        rate: a device whose hours are to be estimated, too: TFLOP/s such as 300TFLOPS, a name such as h100, or `here`.
    """
    record = read_config(configfile, config)
    print(cost.described(record))
    if rate is not None:
        print(f"\n{hours.described(record, rate)}")
