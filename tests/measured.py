"""Records of measured cells of numbers that are known: of a normal noise a prompt, or of a value and its replicates."""

from typing import Any

import numpy as np
from synthetic import metric_of, result_of

from eval.results import CellResult
from eval.sweep.cells import Cell

PROMPTS = 128


def cell(method: str, sparsity: str = "0.50", seed: int = 0, weighting: str = "uniform", model: str = "m") -> Cell:
    packages = "1" if method in ("dense", "random") else "4"
    return Cell(model, method, "unstructured", sparsity, weighting, packages, "plain", "plain", "plain", str(seed))


def record(which: Cell, **numbers: Any) -> CellResult:
    about = {"reference": {"count": 9}, "evaluator": {"name": "e"}}
    made = {name: metric_of(name, given, title=name.upper(), unit="u") for name, given in numbers.items()}
    return result_of(which, made, prompts=PROMPTS, provenance=about)


def noise(seed: int, count: int = PROMPTS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)
