"""Intervals, paired differences, and the marks that tables make of them, on synthetic records."""

from dataclasses import replace

import numpy as np
import pytest
from measured import PROMPTS, cell, noise, record
from scipy.stats import binomtest, bootstrap
from synthetic import metric_of

from eval import bootstrap as resampling
from eval.analysis.estimates import difference, estimate


def test_interval_of_a_mean_is_scipys():
    samples = noise(0) ** 2
    theirs = bootstrap((samples,), np.mean, n_resamples=5000, method="percentile", rng=0).confidence_interval
    found = estimate([record(cell("wanda"), clip_score=samples)], "clip_score")
    assert found is not None and found.value == pytest.approx(samples.mean())
    assert found.interval == pytest.approx(tuple(theirs), abs=0.1 * (theirs.high - theirs.low))


def test_replicates_that_are_all_too_large_move_no_interval():
    """Distances of distributions are larger on fewer distinct images."""
    deviations = noise(1, resampling.REPLICATES)
    low, high = resampling.interval(5.0, deviations)
    assert resampling.interval(5.0, deviations + 3) == pytest.approx((low, high)) and low < 5 < high


def test_difference_of_a_configuration_with_itself_is_nothing():
    rows = [
        record(
            cell("wanda", seed=s),
            clip_score=noise(s),
            fid=(3.0, noise(9 + s, resampling.REPLICATES)),
            layer_error=0.1 + s,
        )
        for s in range(3)
    ]
    for name in rows[0].metrics:
        found = difference(rows, rows, name)
        assert found is not None and found.value == 0 and found.interval == (0, 0) and not found.excludes_zero


def test_pairing_takes_out_what_prompts_share():
    """Two methods on hard and easy prompts: their difference is known far better than either."""
    hard = 10 * noise(0)
    one, other = (record(cell(m), clip_score=hard + noise(i)) for i, m in enumerate(("wanda", "random"), 1))
    found, alone = difference([one], [other], "clip_score"), estimate([one], "clip_score")
    assert found.interval[1] - found.interval[0] < 0.3 * (alone.interval[1] - alone.interval[0])
    shared = 10 * noise(0, resampling.REPLICATES)
    small = 0.1 * noise(3, resampling.REPLICATES)
    one, other = record(cell("wanda"), fid=(5.0, shared)), record(cell("random"), fid=(4.0, shared + small))
    found = difference([one], [other], "fid")
    assert found.excludes_zero and found.interval == pytest.approx((0.8, 1.2), abs=0.05)


def test_seeds_widen_the_interval():
    """Three seeds that agree know more than one; three that differ know less."""
    one = estimate([record(cell("wanda"), clip_score=noise(0))], "clip_score").interval
    alike, apart = (
        estimate(
            [record(cell("wanda", seed=s), clip_score=noise(s) + shift * s) for s in range(3)], "clip_score"
        ).interval
        for shift in (0, 2)
    )
    assert alike[1] - alike[0] < one[1] - one[0] < apart[1] - apart[0]


def test_metric_without_a_number_a_prompt_has_students_interval_over_seeds():
    rows = [record(cell("wanda", seed=s), layer_error=v, denoiser_ms=v) for s, v in enumerate((1.0, 2.0, 3.0))]
    for row in rows:
        row.metrics["denoiser_ms"] = replace(row.metrics["denoiser_ms"], quartiles=[0, 9])
    found = estimate(rows, "layer_error")
    assert found.value == 2 and found.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-4)
    assert estimate(rows[:1], "layer_error").interval is None and estimate(rows, "denoiser_ms").interval is None
    assert estimate(rows, "fid") is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_shares_are_told_apart_as_the_exact_test_of_mcnemar_tells(seeds):
    """k prompts, all one way: one that differs in every seed is still one prompt; a hit or miss never is certain."""
    for k in (0, 1, 2, 4, 8, 16):
        hits = np.full(PROMPTS, 100.0)
        rows = [record(cell(m, seed=s), recall_at_1=hits) for m in ("wanda", "random") for s in range(seeds)]
        for row in rows[:seeds]:
            row.metrics["recall_at_1"] = metric_of("recall_at_1", np.repeat([0.0, 100.0], [k, PROMPTS - k]))
        found = difference(rows[:seeds], rows[seeds:], "recall_at_1")
        exact = binomtest(k, k).pvalue if k else 1.0
        assert found.value == pytest.approx(-100 * k / PROMPTS) and found.excludes_zero == (exact < 0.05)
    low, high = estimate(rows[seeds:], "recall_at_1").interval
    assert 97 < low < 100 and high == 100


def test_a_distance_of_nothing_is_no_share_of_misses():
    """The dense model against itself: 0 a prompt, as a hit that never was would have, and exactly 0."""
    assert estimate([record(cell("dense"), lpips_to_dense=np.zeros(PROMPTS))], "lpips_to_dense").interval == (0, 0)


def test_intervals_cover():
    """Of 300 worlds with an effect of prompts, of two seeds and of both, nearly 95 % have the truth in the interval."""
    draw, covered = np.random.default_rng(0), 0
    for _ in range(300):
        prompts, seeds = 0.5 * draw.normal(size=PROMPTS), 0.05 * draw.normal(size=2)
        rows = [
            record(cell("wanda", seed=s), clip_score=prompts + seeds[s] + draw.normal(size=PROMPTS)) for s in range(2)
        ]
        low, high = estimate(rows, "clip_score").interval
        covered += low <= 0 <= high
    assert 0.92 <= covered / 300 <= 0.995
