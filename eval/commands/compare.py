"""`python -m eval compare`."""

import re
from pathlib import Path
from typing import Annotated

import tyro

from eval.report.compare_runs import described
from eval.results import CellResult
from obsdiff.errors import SpecError
from obsdiff.typed import require

RUN_ID = "[0-9a-f]{32}"


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


def read_run(run: str, results: Path) -> CellResult:
    """What was measured of a cell.

    Args:
        run: the cell's folder, its metrics.json, or the id of its MLflow run, in MLFLOW_TRACKING_URI.
        results: whose mlflow.db is looked in where that is not set.

    Raises:
        SpecError: there is none, or it is not of a cell.
    """
    path = Path(run)
    file = path / "metrics.json" if path.is_dir() else path
    if file.is_file():
        return CellResult.read(file)
    if re.fullmatch(RUN_ID, run):
        from eval.tracking.reading import result_of

        return result_of(run, results)
    what = f"{str(file)!r} is not a file" if path.is_dir() else f"{run!r} is not a file, a folder or a run id"
    raise SpecError(f"run: {what}; give a cell's folder, its metrics.json, or the id of its MLflow run (32 digits)")
