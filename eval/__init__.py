"""The benchmark suite: pictures of a cell, their metrics, tables, figures and MLflow runs."""
