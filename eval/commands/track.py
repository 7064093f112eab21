"""`python -m eval track`."""

from pathlib import Path

from eval.sweep.cells import listed
from eval.tracking.runs import track as carry


def run(
    metrics: list[Path],
    sweep: str,
    results: Path,
    out: Path,
    experiment: str = "obsdiff",
    files: tuple[Path, ...] = (),
    sources: dict[str, str] | None = None,
) -> None:
    """Carry finished cells to MLflow: one parent run per sweep, one child per cell; what is there already is resumed.

    Args:
        metrics: the cells' metrics.json files, or a .txt file that lists them.
        sweep: name of the parent run.
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        out: a JSON record of the runs.
        files: artifacts of the parent run.
        sources: prompt files by `<model>/evaluation` and `<model>/calibration-<the cells'>`.
    """
    carry(listed(metrics), sweep, experiment, files, results, out, sources)
