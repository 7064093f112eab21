"""The bootstrap over prompts: what a metric would have been had other prompts been drawn.

Replicate b of every cell takes the same prompts, so replicates of two cells pair, and their difference has an interval
without another look at the images. A replicate is told by how often it takes each prompt.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

REPLICATES = 500
CONFIDENCE = 0.95


@lru_cache(maxsize=4)
def counts(prompts: int) -> NDArray[np.int64]:
    """How often each replicate takes each prompt, always the same for the same number of prompts.

    Returns:
        (REPLICATES, prompts), rows sum to `prompts`.
    """
    return np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), size=REPLICATES)


def means(samples: Sequence[float]) -> NDArray[np.float64]:
    """Replicates of the mean of a number per prompt, (REPLICATES,)."""
    found: NDArray[np.float64] = counts(len(samples)) @ np.asarray(samples, dtype=float) / len(samples)
    return found


def over_seeds(replicates: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Replicates of the mean over seeds, each of which takes seeds with replacement too.

    Args:
        replicates: (REPLICATES,) a seed. The seeds that a replicate takes depend on their number alone.
    """
    seeds = len(replicates)
    taken = np.random.default_rng(1).multinomial(seeds, np.full(seeds, 1 / seeds), size=REPLICATES)
    found: NDArray[np.float64] = (taken * np.stack(replicates, axis=1)).sum(axis=1) / seeds
    return found


def one_each_way(prompts: int) -> NDArray[np.float64]:
    """What one prompt more for and one more against would add to the replicates of a share, in percent: (REPLICATES,).

    The bootstrap tells too much from too few hits and misses: of one prompt in which two configurations differ no
    replicate has the contrary. With these two a difference in k prompts, all one way, excludes 0 from k = 6 on, as the
    exact test of McNemar does; adding to the counts is the remedy of Agresti & Min (Statistics in Medicine, 2005).
    """
    return np.random.default_rng(2).normal(scale=100 * 2**0.5 / prompts, size=REPLICATES)


def interval(value: float, replicates: NDArray[np.float64]) -> tuple[float, float]:
    """The percentile interval at CONFIDENCE around a value, moved by the replicates' bias.

    A replicate has fewer distinct prompts than the cell: distances of distributions (FID, V-statistics) are larger
    on it, all alike. Taking replicates as deviations from their own mean removes that; a mean of samples has no bias.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates - replicates.mean(), [tail, 1 - tail])
    return value + float(low), value + float(high)
