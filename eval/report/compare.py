"""Paired differences of two configurations in every metric that both have measured."""

from collections.abc import Sequence

import pandas as pd

from eval.analysis.estimates import check_pairs, difference, values
from eval.results import CellResult

COLUMNS = ("metric", "first", "second", "difference", "low", "high")


def compare(first: Sequence[CellResult], second: Sequence[CellResult]) -> pd.DataFrame:
    """Means over seeds of both, and first − second with its 95 % interval.

    Args:
        first, second: measured cells, equally many, seed by seed of the same prompts.

    Returns:
        Columns metric, first, second, difference, low, high, in the order of the first record's metrics; an interval
        is over prompts and seeds (eval/analysis/estimates.py), NaN where a metric has none.

    Raises:
        SpecError: the cells do not pair up.
    """
    check_pairs(first, second)
    rows = []
    for name in first[0].metrics if first else ():
        found = difference(first, second, name)
        if found is not None:
            each = (float(values(records, name).mean()) for records in (first, second))
            rows.append((name, *each, found.value, *(found.interval or (float("nan"),) * 2)))
    return pd.DataFrame(rows, columns=list(COLUMNS))
