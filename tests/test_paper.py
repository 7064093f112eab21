"""The paper's numbers and ours side by side."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import result_of

from eval.report.paper import latex, one_line, tidy, write_paper
from eval.report.paper_rows import COLUMNS, read_values
from eval.report.paper_rows import join as joined
from eval.results import CellResult
from eval.sweep.cells import Cell
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
OURS = {column.ours for column in COLUMNS.values()}
VALUES = """table,model,method,pattern,sparsity,weighting,packages,sampling,calibration,metric,value
3,m,dense,unstructured,0.00,,,,,params_B,2.5
3,m,dense,unstructured,0.00,,,,,fid,30
3,m,ecodiff,structured,0.20,,,,,fid,40
3,m,obs_diff,structured,0.20,,,,,params_B,2.1
3,m,obs_diff,structured,0.20,,,,,fid,31
9,m,obs_diff,structured,0.20,,,,,minutes,3
"""


def cell(method: str, sparsity: str, seed: int = 0, weighting: str = "uniform", **metrics: float) -> CellResult:
    """A measured cell; what is not given is 0, ImageReward is not measured."""
    pattern = "unstructured" if method == "dense" else "structured"
    axes = Cell("m", method, pattern, sparsity, weighting, "1", "exclude=ab", "plain", "plain", str(seed))
    values = dict.fromkeys(OURS - {"image_reward"}, 0.0) | metrics
    about = {
        "machine": {"device": "some GPU", "dtype": "float16"},
        "reference": {"count": 7},
        "evaluator": {"name": "judge"},
    }
    return result_of(axes, values, prompts=2, provenance=about)


@pytest.fixture
def values(tmp_path) -> Path:
    (tmp_path / "values.csv").write_text(VALUES)
    return tmp_path / "values.csv"


CELLS = (
    cell("dense", "0.00", nonzero_parameters=2567.0, fid=32.0),
    cell("obs_diff", "0.20", 0, fid=30.0, nonzero_parameters=2100.0),
    cell("obs_diff", "0.20", 1, fid=34.0, nonzero_parameters=2100.0),
    cell("wanda", "0.20", fid=50.0),
)


def test_every_row_of_either_side_is_there(values):
    """Seeds are averaged, units are the paper's, and what one side lacks is none and not left out."""
    table = tidy(joined(read_values(3, values), CELLS)).set_index(["method", "metric"])
    assert list(dict.fromkeys(method for method, _ in table.index)) == ["dense", "ecodiff", "obs_diff", "wanda"]
    assert len(table) == 4 * 2
    assert table.loc[("dense", "params_B")][["paper", "ours"]].tolist() == pytest.approx([2.5, 2.567])
    assert table.loc[("obs_diff", "fid")][["paper", "ours", "difference"]].tolist() == [31, 32, 1]
    assert table.loc[("ecodiff", "fid"), "paper"] == 40 and table.loc[("wanda", "fid"), "ours"] == 50
    lacking = (
        table.loc[("ecodiff", "fid")][["ours", "difference"]],
        table.loc[("wanda", "fid")][["paper", "difference"]],
    )
    assert all(row.isna().all() for row in lacking)
    assert table["paper"].notna().sum() == VALUES.count("\n3,")


def test_a_row_takes_the_first_cell_that_fits(values):
    other = cell("obs_diff", "0.20", weighting="log_decrease", fid=99.0)
    rows = joined(read_values(3, values), [*CELLS, other])
    assert [row.ours["fid"] for row in rows if row.paper.get("fid") == 31] == [32]
    assert [(row.name, row.ours["fid"]) for row in rows if not row.paper][-1] == (
        "obs_diff log_decrease packages 1 exclude=ab",
        99,
    )


def test_files(values, tmp_path):
    write_paper(CELLS, 3, tmp_path / "out", "tiny", values)
    text = (tmp_path / "out/paper.md").read_text()
    assert "**Randomly initialised tiny models: these numbers exercise the code and mean nothing.**" in text
    for fact in ("some GPU, float16", "2 prompts", "evaluator features", "7 real images", "`judge`", "Table 3"):
        assert fact in text
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    judged = ["FID: paper", "ours", "paper − dense", "ours − dense", "verdict"]
    assert rows[0][2:] == ["pattern", "sparsity", "parameters, B: paper", "ours", "Δ", *judged]
    ours = ["32.00 [6.59, 57.41]", "+1.00", "-2.00", "cannot be decided"]  # seeds 0 and 1; the dense row has 0 alone
    assert ["m", "obs_diff", "structured", "0.20", "2.10", "2.10", "+0.00", "31.00", *ours] in rows
    assert ["m", "ecodiff", "structured", "0.20", "–", "–", "–", "40.00", "–", "+10.00", "–", "–"] in rows
    assert len(list(csv.DictReader((tmp_path / "out/paper.csv").read_text().splitlines()))) == 8
    tex = re.sub(" +", " ", (tmp_path / "out/paper.tex").read_text())
    assert r"obs\_diff & structured & 0.20 & 2.10" in tex and tex.count(r" \\") == 5
    write_paper(CELLS, 9, tmp_path / "full", "full", values)
    assert "mean nothing" not in (tmp_path / "full/paper.md").read_text()


def calibrated(method: str, **changed: Any) -> CellResult:
    """A cell that calibrated."""
    made, sampling = cell(method, "0.20"), {"steps": 25, "guidance_scale": 7.0, "height": 512, "width": 512}
    spec = {"alpha_min": 0.8, "alpha_max": 1.2, "damping": 0.01, "prompts": "abcdef" * 10}
    made.provenance["spec"] = spec | {"sampling": sampling | {"scheduler": "euler"} | changed}
    return made


def test_head_says_what_defines_the_run(values, tmp_path):
    write_paper([CELLS[0], calibrated("obs_diff"), calibrated("wanda", steps=15)], 3, tmp_path, "full", values)
    text = (tmp_path / "paper.md").read_text()
    how = "25 steps, guidance 7, 512×512, euler; captions abcdefabcdef (SHA-256); α in [0.8, 1.2], damping 0.01"
    assert f"Calibrated (m obs_diff): {how}." in text and "Calibrated (m wanda): 15 steps," in text
    assert "some GPU, float16; 2 prompts; seed 0." in text and "docs/paper.md" in text


def test_tflops_have_ours_in_use_beside_them(tmp_path):
    (tmp_path / "values.csv").write_text(VALUES.replace("params_B,2.1", "tflops,2.1"))
    made = cell("obs_diff", "0.20", paper_tflops=2.2, denoiser_tflops=7.0)
    write_paper([CELLS[0], made], 3, tmp_path, "full", tmp_path / "values.csv")
    lines = [[part.strip() for part in x.split("|")[1:-1]] for x in (tmp_path / "paper.md").read_text().splitlines()]
    titles, *rows = [line for line in lines if len(line) > 3]
    at = titles.index("TFLOPs as the paper counts: paper")
    assert titles[at + 1 : at + 4] == ["ours", "Δ", "TFLOPs of a call in use, ours"]
    assert ["2.10", "2.20", "+0.10", "7.00"] in [row[at : at + 4] for row in rows]


TEX = {
    **{rf"\{c}": c for c in "&%$#_{}"},
    r"\^{}": "^",
    r"\textasciitilde{}": "~",
    r"\textbackslash{}": "\\",
    r"\ensuremath{<}": "<",
    r"\ensuremath{>}": ">",
    r"$\Delta$": "Δ",
}
TOKEN = re.compile("|".join(sorted(map(re.escape, TEX), key=len, reverse=True)))
NASTY = (*"\\${}^~&%#_*Δ–猫|", "\n\n", "\x00", "\x01", "[x]", "---", "a b")


@given(st.lists(st.lists(st.one_of(st.sampled_from(NASTY), st.text()), min_size=2, max_size=2), min_size=2, max_size=5))
def test_latex_is_right_for_any_text(lines):
    """Every cell is read back as it was; nothing in it ends a row, a cell or a comment, or is taken for a command."""
    tex = latex(lines[0], lines[1:])
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(lines) and not re.search(r"(?m)^ *[\[*]", tex)
    for row, line in zip(rows, lines, strict=True):
        found = re.split(r"(?<!\\)&", row.removesuffix(r"\\"))
        plain = [re.sub(r"^\{\}(?=[\[*])", "", text.strip()) for text in found]
        assert all(not re.search(r"[\\$^~&%#_{}]", TOKEN.sub("", text)) for text in plain)
        assert [TOKEN.sub(lambda m: TEX[m[0]], text) for text in plain] == [
            one_line(text).replace("–", "--") for text in line
        ]


def test_unknown_table_is_refused(values):
    with pytest.raises(SpecError, match=r"paper: 10 is not one of the tables of .*values\.csv \(3, 9\)"):
        read_values(10, values)


def test_papers_numbers():
    """Spot checks against the paper; every metric is one of the columns, and measured by a file of ours."""
    rows = {
        (number, row.axes["model"], row.axes["method"], row.axes.get("sparsity", "")): row.paper
        for number in (1, 3, 9)
        for row in read_values(number, ROOT / "config/paper/values.csv")
    }
    assert rows[1, "sd3-medium", "obs_diff", "0.50"] == {"fid": 27.20, "clip": 0.3167, "imagereward": 0.6468}
    assert rows[3, "sdxl", "dense", "0.00"]["params_B"] == 2.57 and rows[3, "sdxl", "ecodiff", "0.30"]["fid"] == 101.96
    assert rows[9, "sd3-medium", "l1_norm", "0.25"]["tflops"] == 2.19
    assert set(OURS) <= {p.stem for p in (ROOT / "eval").glob("*_metrics/*.py")}
