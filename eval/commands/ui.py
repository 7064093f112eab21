"""`python -m eval ui`."""

from pathlib import Path

from eval.tracking.pages import serve


def run(results: Path = Path("results"), experiment: str = "obsdiff", port: int = 5000) -> None:
    """Show the tracked runs in MLflow's pages; prints the experiment's.

    Args:
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        port: of the server on this machine.
    """
    serve(results, experiment, port)
