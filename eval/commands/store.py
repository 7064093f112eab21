"""`python -m eval store`."""

from pathlib import Path

from eval.tracking.store import prepare


def run(results: Path, out: Path, experiment: str = "obsdiff") -> None:
    """Make MLflow's store, where it is missing, before there is anything to track.

    Args:
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        out: a JSON record.
    """
    prepare(results, experiment, out)
