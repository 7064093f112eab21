"""What tables say of estimates: marks, best, footnotes, digits, on synthetic records of a known order."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from measured import PROMPTS, cell, noise, record

from eval import bootstrap as resampling
from eval import image_metrics
from eval.analysis import shown
from eval.analysis.analysis import Analysis
from eval.analysis.comparisons import best_of, groups
from eval.analysis.estimates import Estimate, estimate
from eval.report.columns import with_interval
from eval.report.findings import sentences
from eval.report.summary_page import markdown
from eval.report.tables import write_tables
from eval.results import CellResult
from obsdiff import registry


def world() -> list[CellResult]:
    """Two seeds each of: dense; obs_diff and its twin with another weighting, as good as dense in clip_score; a little
    worse wanda; random far off. FID tells them as clip_score does, R@1 tells none."""
    prompts = noise(0)
    rows: list[CellResult] = []
    for method, weighting, loss in (
        ("dense", "uniform", 0.0),
        ("wanda", "uniform", 0.5),
        ("obs_diff", "log_decrease", 0.0),
        ("obs_diff", "cosine", 0.001),
        ("random", "uniform", 3.0),
    ):
        for seed in range(2):
            own = noise(len(rows) + 5)
            rows.append(
                record(
                    cell(method, "0.00" if method == "dense" else "0.50", seed, weighting),
                    fid=(5 + loss, noise(1, resampling.REPLICATES) + 0.1 * noise(len(rows), resampling.REPLICATES)),
                    clip_score=prompts - loss + 0.1 * own,
                    recall_at_1=np.where(own > 0, 100.0, 0.0),
                    psnr_to_dense=prompts + 20 - loss + 0.1 * own if method != "dense" else np.full(PROMPTS, 60.0),
                    layer_error=loss / 10,
                    pruning_seconds=2.0,
                )
            )
    return rows


def lines_of(text: str, section: str) -> list[dict[str, str]]:
    table = text.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def written(tmp_path: Path, rows: list[CellResult]) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    write_tables(Analysis(rows), tmp_path)
    summary, differences = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("summary", "differences"))
    return (tmp_path / "summary.md").read_text(), summary, differences


def test_table_marks_the_best_and_what_is_not_distinguishable(tmp_path):
    text, _, _ = written(tmp_path, world())
    dense, wanda, obs_diff, twin, random = lines_of(text, "Quality")
    for column in ("FID (u) ↓", "CLIP_SCORE (u) ↑"):
        best, tied = (obs_diff, twin) if "**" in obs_diff[column] else (twin, obs_diff)
        assert best[column].startswith("**") and best[column].endswith("] =") and "°" not in best[column]
        assert tied[column].endswith("] ° =")
        assert all(row[column].endswith("]") and "*" not in row[column] for row in (dense, wanda, random))
    tied = [row["RECALL_AT_1 (u) ↑"] for row in (wanda, obs_diff, twin, random)]
    assert sum("**" in value for value in tied) == 1 and sum("°" in value for value in tied) == 3
    assert all(value.endswith("=") for value in tied)
    assert dense["images"] == "2 × 128" and [row["weighting"] for row in (obs_diff, twin)] == [
        "log_decrease",
        "cosine",
    ]
    similar = lines_of(text, "Similarity to the dense model")
    assert [row["method"] for row in similar] == ["wanda", "obs_diff", "obs_diff", "random"]
    assert not any("=" in value for row in similar for value in row.values())
    assert "95 % intervals over prompts and seeds" in text and "not corrected for multiple comparisons" in text


def test_paired_differences_are_from_obs_diff(tmp_path):
    text, _, table = written(tmp_path, world())
    wanda, twin, random = lines_of(text, "Paired differences")
    assert twin["weighting"] == "cosine"
    assert {row["minus"] for row in (wanda, twin, random)} == {"obs_diff log_decrease"}
    assert wanda["FID (u) ↓"].startswith("+0.50 [+0.") and wanda["CLIP_SCORE (u) ↑"].startswith("-0.5")
    assert "°" in twin["FID (u) ↓"] and "°" not in random["FID (u) ↓"]
    keys = table.groupby(["against", "metric"]).size().unstack()
    assert set(keys.columns) == {"fid", "clip_score", "recall_at_1", "psnr_to_dense", "layer_error"}
    assert (keys.loc["best"] == 3).all() and (keys.loc["base"] == 3).all()
    assert keys.loc["dense"].dropna().to_dict() == {"fid": 4, "clip_score": 4, "recall_at_1": 4}
    assert np.allclose(table["first"] - table["second"], table["difference"])
    assert (((table["low"] > 0) | (table["high"] < 0)) == table["distinguishable"]).all()
    row = table.query("method == 'random' and against == 'dense' and metric == 'fid'").iloc[0]
    assert row["of"] == "dense" and row["difference"] == pytest.approx(3) and row["seeds"] == 2


def test_options_and_calibration_are_also_compared_with_their_method_without_them(tmp_path):
    own = [replace(cell("solace", seed=s), **more) for s in (0, 1) for more in ({}, {"options": "refit=false"})]
    own += [replace(cell("solace", seed=s), options="refit=false", calibration="count=9") for s in (0, 1)]
    obs = [replace(cell("obs_diff", seed=s, weighting="log_decrease"), options="bias=true") for s in (0, 1)]
    rows = world() + [record(which, clip_score=noise(i)) for i, which in enumerate([*own, *obs], 40)]
    text, _, table = written(tmp_path, rows)
    pairs = [(r["method"], r["options"], r["minus"]) for r in lines_of(text, "Paired differences")]
    assert pairs.count(("solace", "refit=false", "solace")) == 2
    assert pairs.count(("obs_diff", "bias=true", "obs_diff log_decrease")) == 1 == sum("bias=true" in p for p in pairs)
    found = table.query("against == 'plain'")
    assert set(found["method"]) == {"solace"} and set(found["of"]) == {"solace 0.50"}
    assert len(found) == 2 and (found["seeds"] == 2).all()


def test_best_where_there_is_no_obs_diff(tmp_path):
    rows = [row for row in world() if row.cell.method != "obs_diff"]
    text, _, _ = written(tmp_path, rows)
    assert [(r["method"], r["minus"]) for r in lines_of(text, "Paired differences")] == [("random", "wanda uniform")]


def test_summary_has_a_row_a_configuration(tmp_path):
    rows = world()
    text, table, _ = written(tmp_path, rows)
    assert len(table) == 5 and (table["seeds"] == 2).all() and (table["pictures"] == PROMPTS).all()
    for name in ("fid", "clip_score", "recall_at_1"):
        assert (table[f"{name}_low"] < table[name]).all() and (table[name] < table[f"{name}_high"]).all()
        expected = [r.metrics[name].value for r in rows]
        assert table[name].tolist() == pytest.approx(np.reshape(expected, (5, 2)).mean(axis=1).tolist())
    write_tables(Analysis(rows[::2]), tmp_path / "one")
    with (tmp_path / "one/summary.csv").open() as file:
        alone = list(csv.DictReader(file))
    assert len(alone) == 5 and "fid_low" in alone[0] and "layer_error_low" not in alone[0]
    assert [list(row) for row in lines_of((tmp_path / "one/summary.md").read_text(), "Quality")] == [
        list(row) for row in lines_of(text, "Quality")
    ]


def test_models_and_sparsities_have_a_best_each():
    rows = [
        record(cell(method, sparsity, model=model), fid=value)
        for model in ("m", "n")
        for sparsity in ("0.50", "0.70")
        for method, value in (("wanda", 1.0), ("random", 2.0))
    ]
    analysis = Analysis([*rows, record(cell("magnitude", "0.90"), fid=1.0)])
    found = [best_of(group, "fid") for group in groups(analysis.configurations.values())]
    assert [one and one.cell.method for one in found] == ["wanda"] * 4 + [None]
    assert analysis.comparisons == []


def test_only_seeds_that_both_have_are_paired(tmp_path):
    rows = world() + [record(cell("dsnot", seed=s), clip_score=noise(s + 20)) for s in (1, 7)]
    _, _, table = written(tmp_path, rows)
    found = table.query("method == 'dsnot' and metric == 'clip_score'")
    assert (found["seeds"] == 1).all() and set(found["against"]) == {"best", "base", "dense"}
    assert (found["first"] == noise(21).mean()).all()


def test_metric_that_was_not_measured_everywhere_is_left_empty(tmp_path):
    rows = world()
    text, table, _ = written(tmp_path, rows)
    assert "IMAGE_REWARD" not in text and "image_reward" not in table
    for row in rows[2:4]:
        row.metrics.update(record(cell("wanda"), image_reward=noise(1)).metrics)
    text, table, _ = written(tmp_path, rows)
    column = [row["IMAGE_REWARD (u) ↑"] for row in lines_of(text, "Quality")]
    assert [bool(value) for value in column] == [False, True, False, False, False]
    assert table["image_reward"].notna().tolist() == [bool(value) for value in column]


def test_warnings_are_footnotes(tmp_path):
    rows = world()
    assert "†" not in written(tmp_path, rows)[0]
    for row in rows:
        warning = "covariance rank-deficient: 128 images in 2048 dimensions"
        row.metrics["fid"] = replace(row.metrics["fid"], warning=warning)
    text, _, _ = written(tmp_path, rows)
    assert text.count("† FID of m: covariance rank-deficient: 128 images in 2048 dimensions.") == 1
    assert "FID (u) ↓ †" in lines_of(text, "Quality")[0]


def test_dense_alone_is_a_table(tmp_path):
    text, _, table = written(tmp_path, world()[:2])
    assert len(lines_of(text, "Quality")) == 1 and "Similarity" not in text and table.empty


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (5.0123, 0.39, "5.01 [4.62, 5.40]"),
        (117.04, 12, "117 [105, 129]"),
        (0.82054, 0.0034, "0.8205 [0.8171, 0.8239]"),
        (93.75, 3.1, "93.8 [90.7, 96.8]"),
        (-0.2, 14, "0 [-14, 14]"),
        (60.0, 0, "60"),
    ],
)
def test_an_interval_sets_the_digits(value, half, text):
    found = Estimate(value, (value - half, value + half))
    assert with_interval(found) == text
    assert with_interval(found, bold=True).startswith(f"**{text.split()[0]}**")
    assert with_interval(found, signed=True).startswith(f"+{text.split()[0]}")


def test_every_metric_of_images_is_in_a_table_and_the_headlines_have_a_rank_of_their_own():
    listed = [*shown.names("quality"), *shown.names("similarity"), *shown.names("references")]
    assert set(registry.names("eval.image_metrics")) <= set(listed) and len(listed) == len(set(listed))
    ranks = [image_metrics.traits(name).headline for name in shown.headlines()]
    assert ranks == list(range(1, len(ranks) + 1))
    assert set(shown.broken_by()) < set(shown.headlines()) <= set(listed)
    assert all(image_metrics.traits(name).unit == "%" for name in listed if shown.is_share(name))


def test_what_is_computed_of_configurations_is_computed_once(monkeypatch):
    asked = []

    def counted(records, name):
        asked.append((id(records[0]), name))
        return estimate(records, name)

    monkeypatch.setattr("eval.analysis.estimates.estimate", counted)
    analysis = Analysis(world())
    for _ in range(2):
        markdown(analysis, [" ".join(sentences(setting)) for setting in analysis.settings])
    assert asked and len(asked) == len(set(asked))
    one, other = list(analysis.configurations.values())[-2:]
    assert one.minus(other, "clip_score") is one.minus(other, "clip_score")
