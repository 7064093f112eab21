"""Paired differences of two cells, or of the same two over several seeds, with bootstrap intervals over prompts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from eval.tables import Cell
from obsdiff.errors import SpecError

RESAMPLES = 5000


def compare(first: Sequence[Cell], second: Sequence[Cell]) -> pd.DataFrame:
    """Mean of first − second of every metric that has a number a prompt and was measured in all cells.

    Args:
        first, second: metrics.json records, equally many, seed by seed of the same prompts.

    Returns:
        Columns metric, difference, low, high: a 95 % percentile interval over prompts, seeds averaged first.

    Raises:
        SpecError: the cells do not pair up.
    """
    if len(first) != len(second):
        raise SpecError(f"cells: {len(first)} against {len(second)}; give equally many")
    for a, b in zip(first, second, strict=True):
        if a["prompts"] != b["prompts"] or a["cell"]["seed"] != b["cell"]["seed"]:
            raise SpecError("cells: the two do not pair up; give the same model, prompts and seeds in the same order")
    rows = []
    for name, metric in first[0]["metrics"].items():
        if "samples" not in metric or not all(name in cell["metrics"] for cell in (*first, *second)):
            continue
        pairs = [
            (a["metrics"][name]["samples"], b["metrics"][name]["samples"]) for a, b in zip(first, second, strict=True)
        ]
        difference = np.mean([np.subtract(a, b) for a, b in pairs], axis=0)
        low = high = float(difference.mean())
        if np.ptp(difference) > 0:
            done = bootstrap((difference,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0)
            low, high = done.confidence_interval
        rows.append({"metric": name, "difference": float(difference.mean()), "low": float(low), "high": float(high)})
    return pd.DataFrame(rows)
