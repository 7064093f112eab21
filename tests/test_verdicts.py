"""Verdicts about the paper's rows and claims: what is reproduced, what is not, and what our numbers cannot decide."""

import numpy as np
import pytest
from synthetic import cell_of, result_of

from eval.analysis.estimates import Estimate
from eval.report.paper import counts, summed_up, verdict_table, write_paper
from eval.report.paper_rows import Row, join, read_values
from eval.report.verdicts import FAILS, HOLDS, OPEN, REFUTED, REPRODUCED, Claim, Effect, claims, effect

PROMPTS = 64


@pytest.mark.parametrize(
    ("paper", "value", "ends", "verdict"),
    [
        (-0.10, -0.11, (-0.13, -0.09), REPRODUCED),
        (-0.10, -0.12, (-0.14, -0.105), REPRODUCED),  # within a tenth of the paper's effect
        (-0.10, -0.12, (-0.14, -0.111), REFUTED),
        (-0.10, 0.02, (-0.01, 0.05), REFUTED),
        (-0.10, -0.05, (-0.12, 0.02), OPEN),
        (0.0, 0.01, (-0.01, 0.03), REPRODUCED),
        (0.0, 0.02, (0.01, 0.03), REFUTED),
        (-0.10, -0.10, None, OPEN),
    ],
)
def test_an_effect_is_reproduced_where_our_interval_has_it(paper, value, ends, verdict):
    assert Effect(paper, Estimate(value, ends)).verdict == verdict
    mirrored = None if ends is None else (-ends[1], -ends[0])
    assert Effect(-paper, Estimate(-value, mirrored)).verdict == verdict


def test_nothing_is_said_of_what_one_side_lacks():
    assert Effect(None, Estimate(1.0, (0.0, 2.0))).verdict == Effect(0.1, None).verdict == ""


@pytest.mark.parametrize(
    ("ends", "verdict"), [((0.01, 0.03), HOLDS), ((-0.03, -0.01), FAILS), ((-0.01, 0.03), OPEN), (None, OPEN)]
)
def test_a_claim_holds_where_our_difference_has_its_sign(ends, verdict):
    ours = Estimate(0.0 if ends is None else sum(ends) / 2, ends)
    assert Claim("m", "clip", "a", "b", 0.02, ours).verdict == verdict
    lower = None if ends is None else (-ends[1], -ends[0])
    assert Claim("m", "fid", "a", "b", -2.0, Estimate(-ours.value, lower)).verdict == verdict


VALUES = """table,model,method,pattern,sparsity,weighting,packages,sampling,calibration,metric,value
1,emoji-sd3,dense,unstructured,0.00,,,,,clip,0.80
1,emoji-sd3,dense,unstructured,0.00,,,,,fid,30
1,emoji-sd3,wanda,unstructured,0.50,,,,,clip,0.70
1,emoji-sd3,wanda,unstructured,0.50,,,,,fid,20
1,emoji-sd3,obs_diff,unstructured,0.50,,,,,clip,0.76
1,emoji-sd3,obs_diff,unstructured,0.50,,,,,fid,25
6,emoji-sd3,obs_diff,unstructured,0.50,uniform,,,,clip,0.75
6,emoji-sd3,obs_diff,unstructured,0.50,log_decrease,,,,clip,0.76
7,emoji-sd3,obs_diff,unstructured,0.50,,1,,,clip,0.76
7,emoji-sd3,obs_diff,unstructured,0.50,,4,,,clip,0.74
"""


def measured(method: str, sparsity: float, clip: float, **more: str):
    """Scores with a spread over prompts that all cells share, and a little of their own."""
    common = np.random.default_rng(0).normal(0, 0.1, PROMPTS)
    own = np.random.default_rng([*method.encode(), *"".join(more.values()).encode()]).normal(0, 1e-3, PROMPTS)
    samples = {"clip_score": clip + common - common.mean() + own - own.mean()}
    return result_of(cell_of(method, sparsity, **more), samples | {"fid": 25.0}, PROMPTS)


@pytest.fixture
def values(tmp_path):
    (tmp_path / "values.csv").write_text(VALUES)
    return tmp_path / "values.csv"


def test_rows_are_held_against_the_dense_row_of_their_own_side(values):
    """Another level of the score on our side changes nothing."""
    cells = [measured("dense", 0.0, 0.50), measured("wanda", 0.5, 0.45), measured("obs_diff", 0.5, 0.46)]
    rows = join(read_values(1, values), cells)
    found = {row.axes["method"]: effect(row, rows, "clip") for row in rows}
    assert found["dense"] is None
    assert found["wanda"].paper == pytest.approx(-0.1) and found["wanda"].ours.value == pytest.approx(-0.05)
    assert (found["wanda"].verdict, found["obs_diff"].verdict) == (REFUTED, REPRODUCED)
    assert effect(rows[1], rows, "params_B") is None
    assert effect(rows[1], rows, "fid").verdict == OPEN  # one seed and no replicates: no interval


def test_claims_are_of_the_papers_choice_against_each_other(values):
    cells = [measured("wanda", 0.5, 0.45), measured("obs_diff", 0.5, 0.46)]
    rows = join(read_values(1, values), cells)
    found = {(one.metric, one.better, one.worse): one for one in claims(rows)}
    assert set(found) == {("clip", "obs_diff", "wanda"), ("fid", "wanda", "obs_diff")}
    assert found["clip", "obs_diff", "wanda"].paper == pytest.approx(0.06)
    assert found["clip", "obs_diff", "wanda"].verdict == HOLDS and found["fid", "wanda", "obs_diff"].verdict == OPEN
    weightings = [
        measured("obs_diff", 0.5, value, weighting=w) for w, value in (("uniform", 0.5), ("log_decrease", 0.4))
    ]
    (one,) = claims(join(read_values(6, values), weightings))
    assert (one.better, one.worse, one.verdict) == ("weighting log_decrease", "weighting uniform", FAILS)
    (one,) = claims(join(read_values(7, values), []))
    assert (one.better, one.worse, one.ours, one.verdict) == ("packages 1", "packages 4", None, OPEN)


def test_the_page_counts_its_verdicts(values, tmp_path):
    about = {"machine": {"device": "some GPU", "dtype": "float16"}, "reference": {"count": 7}}
    about |= {"evaluator": {"name": "judge"}, "spec": {}}
    cells = [measured("dense", 0.0, 0.5), measured("wanda", 0.5, 0.45), measured("obs_diff", 0.5, 0.46)]
    for cell in cells:
        cell.provenance.update(about)
    write_paper(cells, 1, tmp_path / "out", "full", values)
    text = (tmp_path / "out/paper.md").read_text()
    assert (
        "**Rows: 2 cannot be decided, 1 not reproduced, 1 reproduced. Claims: 1 holds, 1 cannot be decided.**" in text
    )
    assert "| obs_diff is better than wanda | +0.0600 | +0.0100 [" in text and "| holds" in text
    table = (tmp_path / "out/paper.csv").read_text()
    assert "paper_to_dense,ours_to_dense,ours_to_dense_low,ours_to_dense_high,verdict" in table and REFUTED in table


def test_a_table_without_judged_metrics_has_no_verdicts():
    rows = [Row({"model": "m", "method": "obs_diff"}, paper={"minutes": 3.0})]
    assert not list(summed_up(rows)) and verdict_table(rows) == "" and counts(["", ""]) == "nothing to compare"
