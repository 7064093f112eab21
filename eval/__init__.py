"""The benchmark suite: images of a cell, their metrics, tables, figures and MLflow runs."""
