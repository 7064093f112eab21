"""The page of a sweep: it needs nothing beside it, and what it says is what the records say."""

import os
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from markupsafe import escape
from synthetic import cell_of, folders_of, record_of, sweep

from eval.analysis.analysis import Analysis
from eval.figures import write_figures
from eval.report.findings import (
    Lead,
    bought_sentence,
    break_sentence,
    breaks,
    lead,
    lead_text,
    leaders,
    listed,
    sentences,
)
from eval.report.page import command, sections, what_was_run, write_report
from eval.report.publish import publish
from eval.report.summary_page import IN_SHORT
from eval.report.tables import write_tables
from eval.sweep import progress
from eval.sweep.config import read_sweep
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
SVG = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
SUMMARY = """# Summary

2 cells, evaluator `zoo/<clip>`.

## Quality

| method | FID ↓ |
|:--|:--|
| dense | 3.2 |
| a\\|b | **3.3** [3.1, 3.5] |
"""


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def page_of(records, folder: Path, **more) -> str:
    """The page of a sweep with one drawn figure and one of images."""
    (folder / "figures").mkdir(parents=True)
    (folder / "summary.md").write_text(SUMMARY)
    (folder / "figures" / "quality.svg").write_text(SVG)
    (folder / "figures" / "pictures.svg").write_text(SVG.replace("></svg>", "><image/></svg>"))
    (folder / "figures" / "pictures.png").write_bytes(b"PNG")
    (folder / "metrics.json").write_text("{}")
    os.utime(folder / "metrics.json", (86400 * 365, 86400 * 365))
    paths = [folder / "metrics.json"] * len(records)
    write_report(Analysis(records), paths, folder, more.pop("sweep", "default"), folder / "report.html", **more)
    return (folder / "report.html").read_text()


class Page(HTMLParser):
    """Elements with their attributes, and whether they close."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def test_page_needs_nothing_beside_it_and_is_accessible(tmp_path):
    other = tmp_path / "weightings" / "summary.md"
    other.parent.mkdir()
    other.write_text(SUMMARY)
    text = page_of(sweep(), tmp_path / "own", others=[other])
    page = Page(text)
    loads = [a.get("src") or a.get("href") or "" for a in page.all("img", "link", "script", "iframe", "source")]
    assert not [a for a in page.all("script") if "src" in a]
    assert loads and all(load.startswith("data:") for load in filter(None, loads))
    assert not re.search(r"url\(|@import|https?://", re.sub(r'"data:[^"]*"', "", text))
    assert all(a["alt"] for a in page.all("img")) and [a["src"][:15] for a in page.all("img")] == [
        "data:image/svg+",
        "data:image/png;",
    ]
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == len(page.all("thead")) > 3
    names = [a["id"] for _, a in page.elements if "id" in a]
    sections_of_page = {a["id"] for a in page.all("section")}
    assert len(set(names)) == len(names) and {a["href"].lstrip("#") for a in page.all("a")} == sections_of_page
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert page.all("html")[0]["lang"] == "en" and 'name="viewport"' in text


def test_page_says_what_was_run_and_of_what(tmp_path):
    text = page_of(sweep(), tmp_path / "own")
    for part in ("0.3, 0.7", "1971-01-01", "SHA-256 e825", "SHA-256 aa11", "torch 2.14.1", "x86_64 CPU, float32"):
        assert part in text
    assert "snakemake --cores all" in text and "zoo/&lt;clip&gt;" in text and "zoo/<clip>" not in text
    assert "mean nothing" not in text and "mean nothing" in page_of(sweep(), tmp_path / "tiny", scale="tiny")
    rows = dict(what_was_run(sweep(("random",)), [tmp_path / "own/metrics.json"]))
    assert rows["cells"] == "6, 24 images per cell" and rows["measured"] == "1971-01-01"
    assert "weighting" not in rows and "packages" not in rows and rows["sparsity"] == "0.3, 0.7"


@pytest.mark.parametrize(
    "records",
    [
        sweep(()),
        sweep(("obs_diff",), (0.5,), (0,)),
        sweep(("obs_diff", "wanda"), dense=False),
        sweep(intervals=False),
        [record_of(cell_of("obs_diff", 0.5, pattern=p)) for p in ("2:4", "unstructured")],
    ],
    ids=["dense alone", "one cell", "no dense", "no intervals", "two patterns"],
)
def test_page_of_any_sweep_is_whole(records, tmp_path):
    text = page_of(records, tmp_path / "own", sweep="unheard-of")
    Page(text)
    assert "None" not in text and not re.search(r"\bnan\b", text) and "the file whose" in text


def test_leader_is_the_best_and_those_not_told_from_it():
    setting = Analysis(sweep()).settings[0]
    found = lead(setting.at(0.7), "clip_score")
    assert {found.label, *found.alike} == {"sparsegpt", "obs_diff"} and found.behind == ["random", "wanda"]
    assert found.value == pytest.approx(0.8 - 0.1 * 0.49, abs=0.05)
    least = lead(setting.at(0.7), "fid")
    assert least.label == "sparsegpt" and least.behind == ["random", "wanda"] and least.alike == ["obs_diff"]
    assert lead(setting.at(0.7), "nonzero_parameters") is None and lead(setting.at(0.7), "kid") is None
    first = sentences(setting)[0]
    assert first.startswith(
        f"At sparsity 0.7, {found.label} has the best CLIP score ({found.value:.4g} cosine), which "
    )
    assert f"is not significantly different from that of {found.alike[0]} but is" in first
    assert first.endswith("significantly better than that of random and wanda.")
    table = leaders(setting)
    assert [row[0] for row in table.rows] == ["0.3", "0.7"] and table.head[0] == "sparsity"


@pytest.mark.parametrize(
    ("behind", "alike", "unknown", "text"),
    [
        ([], [], [], "a 0.5; the only one"),
        (["b"], [], [], "a 0.5; ahead of all others"),
        (["b"], ["c"], [], "a 0.5; not significantly different: c"),
        ([], [], ["b"], "a 0.5; no interval"),
        (["b"], ["c"], ["d"], "a 0.5; not significantly different: c; no interval: d"),
    ],
)
def test_lead_is_said_in_every_case(behind, alike, unknown, text):
    assert lead_text(Lead("a", 0.5, behind, alike, unknown)) == text


def test_sentence_does_not_list_a_whole_sweep():
    assert listed(list("abcde")) == "a, b, c, d and e" and listed(list("abcdef")) == "6 others" and listed(["a"]) == "a"


def test_seeds_that_only_one_has_do_not_keep_two_from_being_compared():
    records = [*sweep(("wanda",), seeds=(0, 1, 2)), *sweep(("sparsegpt",), seeds=(1,), dense=False)]
    assert lead(Analysis(records).settings[0].at(0.7), "clip_score").behind == ["wanda"]
    apart = [*sweep(("wanda",), seeds=(0,)), *sweep(("sparsegpt",), seeds=(1,), dense=False)]
    assert lead(Analysis(apart).settings[0].at(0.7), "clip_score").unknown


def test_break_is_the_first_sparsity_significantly_below_dense():
    """The loss grows with the sparsity: at 0.01 nothing can be told, at 0.3 all of it."""
    setting = Analysis(sweep(("wanda", "obs_diff"), (0.01, 0.3, 0.7))).settings[0]
    assert (
        break_sentence(setting)
        == "Significantly below the dense model in CLIP score or R@1: wanda, obs_diff from 0.3 on."
    )
    assert [row[:2] for row in breaks(setting).rows] == [["wanda", "0.3"], ["obs_diff", "0.3"]]
    assert breaks(Analysis(sweep(("wanda", "obs_diff"), (0.7,))).settings[0]) is None
    harmless = Analysis(sweep(("wanda",), (0.001, 0.01))).settings[0]
    assert break_sentence(harmless).endswith(": wanda not up to 0.01, the highest tried.")
    assert break_sentence(Analysis(sweep(("wanda",), (0.7,))).settings[0]).endswith(": wanda at 0.7.")
    assert break_sentence(Analysis(sweep(("wanda",), (0.01,))).settings[0]).endswith(": wanda not at 0.01.")
    assert "all of them at 0.7" in break_sentence(Analysis(sweep(("wanda", "obs_diff", "random"), (0.7,))).settings[0])


def test_what_cannot_be_said_is_not_said():
    assert sentences(Analysis(sweep(())).settings[0]) == ["Nothing was pruned: there are dense cells alone."]
    assert "no dense cell" in break_sentence(Analysis(sweep(dense=False)).settings[0])
    blind = Analysis(sweep(seeds=(0,), intervals=False)).settings[0]  # two seeds alone have one by Student
    assert break_sentence(blind).startswith("No paired interval says")
    assert "there is no interval" in sentences(blind)[0] and "told" not in sentences(blind)[0]
    alone = sentences(Analysis(sweep(("obs_diff",), (0.5,), (0,))).settings[0])
    assert alone[0].endswith("no other method was run there.")


def test_what_pruning_buys_is_of_the_highest_sparsity():
    assert bought_sentence(Analysis(sweep()).settings[0]) == (
        "At sparsity 0.7 the denoiser runs 1.7 times as fast as the dense one, its middle block 1.25 times, "
        "44 % of its parameters are not zero, the pruned layers' file is 5.6 MB and pruning took 0.5 to 20 s and "
        "601 MiB at the peak."
    )


def test_tables_of_a_summary_are_read():
    (_, [first]), (heading, [table]) = sections(SUMMARY)
    assert first == "2 cells, evaluator <code>zoo/&lt;clip&gt;</code>." and heading == "Quality"
    assert table["head"] == ["method", "FID\u00a0↓"]
    assert table["rows"] == [["dense", "3.2"], ["a|b", "<strong>3.3</strong> [3.1, 3.5]"]]


def test_ablations_say_in_short_what_the_page_itself_answers(tmp_path):
    """summary.md has the sentences, for pages that show it beside others'; the sweep's own page has them once."""
    records = sweep()
    write_tables(Analysis(records), tmp_path)
    short = dict(sections((tmp_path / "summary.md").read_text()))[IN_SHORT]
    said = [f"<strong>{s.name}.</strong> {escape(' '.join(sentences(s)))}" for s in Analysis(records).settings]
    assert short == said
    assert f">{IN_SHORT}<" not in page_of(records, tmp_path / "own")


def test_published_page_keeps_what_a_person_wrote(tmp_path):
    records, page = sweep(("wanda", "obs_diff"), (0.5,)), tmp_path / "docs/results/own.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Own\n\nA reading, `a | b`.\n")
    with pytest.raises(SpecError, match=r"tables: .*run the sweep"):
        publish(tmp_path / "tables", page, [])
    write_tables(Analysis(records), tmp_path / "tables")
    write_figures(Analysis(records), folders_of(records, tmp_path), tmp_path / "tables/figures")
    with pytest.raises(SpecError, match=r"figures: '.*nothing.png'"):
        publish(tmp_path / "tables", page, ["nothing"])
    publish(tmp_path / "tables", page, ["differences"])
    first = page.read_text()
    assert first.startswith("# Own\n\nA reading, `a | b`.\n\n<!-- from here on: python -m eval publish --tables ")
    image = re.search(r"!\[.*?\]\((.*?)\)", first)[1]
    assert (page.parent / image).read_bytes() == (tmp_path / "tables/figures/differences.png").read_bytes()
    whole = sections((tmp_path / "tables/summary.md").read_text())
    assert [part for part in sections(first) if part[0] != "Own"] == whole[1:]
    page.write_text(first.replace("A reading", "Another"))
    publish(tmp_path / "tables", page, ["differences"])
    assert page.read_text() == first.replace("A reading", "Another")


def test_command_is_the_one_that_runs_the_sweep():
    assert command("default", "full") == "snakemake --cores all"
    assert command("weightings", "full") == "snakemake --cores all --configfile config/ablations/weightings.yaml"
    assert command("default", "tiny").endswith("--config scale=tiny") and command("unheard-of", "full") is None


def test_progress_counts_files_and_tells_of_jobs_that_have_not_ended(tmp_path):
    config = progress.read_config([Path("config/ablations/allocation.yaml")], [f"results={tmp_path}", "name=mine"])
    assert config["grid"]["sparsity"] == [0.7] and config["grid"]["seed"] == [0, 1, 2] and config["name"] == "mine"
    assert config["grid"]["packages"] == [1]
    done, drawing, pruning = read_sweep(config).cells[:3]
    for file in progress.STAGES.values():
        (tmp_path / "cells" / done.path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cells" / done.path / file).write_text("{}")
    images = tmp_path / "cells" / drawing.path / "images"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes(b"")
    for rule, cell, text in (
        ("generate", drawing, "loading\nbatch:  10%|#| 1/8\rbatch:  20%|##| 2/8\r"),
        ("prune", pruning, ""),
        ("prune", done, "of a job that ended"),
    ):
        log = tmp_path / "logs" / rule / f"{cell.path}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
    text = progress.overview(config)
    assert text.startswith("sweep mine: 1 of 12 cells done") and re.search(r"prune +1 of 12", text)
    assert re.search(r"generate emoji-sd3 .* \(1 of 256 images\), \d+ s ago: batch:  20%\|##\| 2/8", text)
    assert "nothing yet" in text and "of a job that ended" not in text
    with pytest.raises(SpecError, match=r"'nowhere\.yaml' is not a file"):
        progress.read_config([Path("nowhere.yaml")], [])
    with pytest.raises(SpecError, match="'results' is not KEY=VALUE"):
        progress.read_config([], ["results"])
