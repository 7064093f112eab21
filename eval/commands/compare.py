"""`python -m eval compare`."""

from pathlib import Path
from typing import Annotated

import tyro

from eval.report.compare_runs import described, read_run
from obsdiff.spec import require


def run(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    first: tuple[str, ...] = (),
    second: tuple[str, ...] = (),
    results: Path = Path("results"),
) -> None:
    """Print the paired difference first − second of each metric, with a 95 % interval over prompts and seeds.

    A run is given by its cell's folder, its metrics.json, or the id of its MLflow run.

    Args:
        runs: two of them; or leave them out and give several seeds of each configuration:
        first: one per seed.
        second: those that are subtracted, in the same order of seeds.
        results: whose mlflow.db run ids are looked up in; MLFLOW_TRACKING_URI names another store.
    """
    given = (len(runs) == 2 and not (first or second)) or (not runs and bool(first) and bool(second))
    require(given, "runs", " ".join(runs), "two runs (or none, with --first and --second)")
    pair = [(run,) for run in runs] if runs else [first, second]
    print(described(*([read_run(run, results) for run in side] for side in pair)))
