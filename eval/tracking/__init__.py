"""metrics.json → MLflow; the only package that imports mlflow.

A sweep is a parent run, a cell a child. Runs are found again by the tags `obsdiff.sweep` and `obsdiff.cell` (the
cell's hash), so that a rerun resumes an unfinished run, leaves a finished one alone and never makes a second; one
whose metrics were measured anew (`obsdiff.metrics` differs) is logged again into the same run. A cell defined otherwise
has another hash, hence a run of its own; the older one is tagged `obsdiff.superseded`.

    runs      track(): a sweep's run and its cells'
    database  the SQLite file of a local store
    store     the experiment and runs, made once
    reading   what a run says of its cell
    content   what a cell's run says
    sweep     what the parent run says
    pages     where MLflow shows them
"""

import os

# before any module here imports mlflow
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow writes the place of its own default experiment, by default the working directory's, unquoted into SQL
os.environ.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
