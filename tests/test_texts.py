"""What people write is shown as they wrote it, in figures and pages, and what cannot be read is named."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic import folders_of, sweep

from eval.analysis.analysis import Analysis
from eval.figures import write_figures
from eval.measure import refuse_not_finite
from eval.report import words
from eval.report.page import command, inline, sections, write_report
from eval.report.summary_page import markdown
from eval.report.tables import read_cells, write_tables
from eval.results import CellResult, write_record
from obsdiff.errors import SpecError

CAPTIONS = (
    *("a jar of $$", "$100 bills, 20% of $200", "\\alpha_{", "\\$ and $x^2$", "tab\tand\x07bell", "two\nlines\r\nof"),
    *("🐈 on a 🛹", "قطة على كرسي", "<script>alert('x')</script> & co", "|pipes|", "`code`", "**bold**", "x" * 5000),
    *("lone \ud800 half", "null \0 char"),
)
SVG = "{http://www.w3.org/2000/svg}"


def with_captions(records: list[CellResult], first: int = 0) -> list[CellResult]:
    """Cells whose captions are CAPTIONS, from one of them on."""
    count = len(CAPTIONS)
    return [replace(r, captions=[CAPTIONS[(first + i) % count] for i in range(len(r.prompts))]) for r in records]


def test_every_caption_is_drawn_as_text_in_figures_that_are_xml(tmp_path):
    """Every caption in both figures that show some: the first six, and the ranked ones."""
    shown = set()
    for turn in range(3):
        records = with_captions(sweep(("wanda", "obs_diff"), (0.5,), (0,)), 5 * (turn + 1))
        root = tmp_path / str(turn)
        assert {"pictures", "prompts"} <= set(
            write_figures(Analysis(records), folders_of(records, root), root / "figures")
        )
        for path in (root / "figures").glob("*.svg"):
            texts = ["".join(node.itertext()) for node in ElementTree.parse(path).iter(f"{SVG}text")]
            if path.stem == "pictures":
                shown |= {" ".join(text.split()) for text in texts}
    for caption in CAPTIONS:
        assert any(words.line(caption) in text for text in shown), caption


def test_names_with_signs_are_text_in_legends_titles_and_labels(tmp_path):
    """A model's name is in every figure's headings; two dollars there are no formula."""
    records = with_captions(sweep(("wanda", "obs_diff"), (0.3, 0.5), (0,)))
    records = [replace(r, cell=replace(r.cell, model="a$b_{$ **c** `d` | <e>")) for r in records]
    write_figures(Analysis(records), folders_of(records, tmp_path), tmp_path / "figures")
    texts = [
        "".join(node.itertext())
        for path in (tmp_path / "figures").glob("*.svg")
        for node in ElementTree.parse(path).iter(f"{SVG}text")
    ]
    assert sum("a$b_{$ **c** `d` | <e>" in text for text in texts) >= 4
    write_tables(Analysis(records), tmp_path)
    whole = sections((tmp_path / "summary.md").read_text())
    (quality,) = [part for title, parts in whole if title == "Quality" for part in parts if isinstance(part, dict)]
    assert len({len(row) for row in [quality["head"], *quality["rows"]]}) == 1
    page = tmp_path / "report.html"
    (tmp_path / "metrics.json").write_text("{}")
    write_report(Analysis(records), [tmp_path / "metrics.json"] * len(records), tmp_path, "<b>mine</b>", page)
    text = page.read_text()
    assert "<e>" not in text and "<b>mine" not in text and "a$b_{$ **c** `d` | &lt;e&gt;" in text


@pytest.mark.parametrize("text", [*CAPTIONS[:-3], "\\", "\\\\|", "*", "a\\*b"])
def test_marked_text_is_one_line_and_is_read_back_as_itself(text):
    marked = words.marked(text)
    assert "\n" not in marked and not re.search(r"(?<!\\)(\\\\)*[|]", marked.replace("\\|", ""))
    assert str(inline(marked)) == str(inline("").__class__.escape(" ".join(words.plain(text).split())))


def test_a_broken_file_among_the_configurations_does_not_stop_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    broken = (
        b"a: [",
        b"\xff\xfe\0",
        b"- 1",
        b"",
        b"d: 2001-13-45",
        b"!!python/object:os.system x",
        b"a: " + b"[" * 5000,
    )
    for i, content in enumerate(broken):
        (tmp_path / "config" / f"{i}.yaml").write_bytes(content)
    (tmp_path / "config" / "my sweep.yaml").write_text("name: mine")
    assert command("mine", "full") == "snakemake --cores all --configfile 'config/my sweep.yaml'"


def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path):
    cell = Path("m/random")
    refuse_not_finite("fid", 1.0, [1.0, 2.0], cell)
    for value, more in ((float("nan"), None), (1.0, [1.0, float("inf")])):
        with pytest.raises(SpecError, match=r"metrics\.fid: (nan|inf) in m/random \(1 numbers are not finite\)"):
            refuse_not_finite("fid", value, more, cell)
    with pytest.raises(SpecError, match=r"x\.json: layers\.0\.error is not a finite number"):
        write_record(tmp_path / "x.json", {"layers": [{"error": float("nan")}]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ('{"cell": ', "not JSON"),
        ("[]", "is not of a cell, it is a list"),
        (json.dumps(sweep()[0].as_dict() | {"cell": {}}), r"has no cell\.model"),
        (json.dumps(sweep()[0].as_dict() | {"metrics": {"fid": 3}}), r"has no metrics\.fid"),
        ('{"a": NaN}', "NaN is not a JSON number"),
    ],
)
def test_a_damaged_metrics_file_is_named(content, message, tmp_path):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(SpecError, match=rf"metrics\.json.*{message}.*; remove it and run the sweep again"):
        read_cells([tmp_path / "metrics.json"])
    with pytest.raises(SpecError, match=r"none\.json' is not a file; measure the cell first"):
        read_cells([tmp_path / "none.json"])


def test_images_that_show_nothing_and_files_passed_over_are_told():
    records = sweep(("wanda", "random"), (0.5,), (0, 1))
    whole = {"count": 24, "black": 0, "flat": 0, "non_finite": 0, "flagged": 0}
    for record in records:
        record.provenance["reference"]["passed_over"] = {"hidden": 2, "not images": 1}
        record.images.update(whole)
        if record.cell.method == "random":
            record.images.update({"black": 3, "non_finite": 1})
    text = markdown(Analysis(records))
    assert "9 real images (passed over 3: 2 hidden, 1 not images), evaluator" in text
    assert "‡ Not every image shows something: random 0.50 6 black, 2 not finite. Black, of one colour" in text
    rows = [line for line in text.splitlines() if "2 × 24 ‡" in line]
    assert len(rows) == 2 and all(line.startswith("| random") for line in rows)  # of quality, and of similarity
    for record in records:
        record.images.clear()
    assert "‡" not in markdown(Analysis(records))
