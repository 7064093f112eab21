"""Cells that are not timed say `as dense` in every table, sentence, figure and run; no number of theirs is anywhere."""

import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from conftest import combinations, entries
from synthetic import cell_of, folders_of, record_of, sweep

from eval.analysis.analysis import Analysis
from eval.analysis.timings import AS_DENSE, as_dense
from eval.measure import measure
from eval.model_metrics import Model
from eval.report.compare_runs import described
from eval.report.findings import sentences
from eval.report.page import write_report
from eval.report.paper import shown
from eval.report.paper_rows import COLUMNS, Row, join
from eval.report.tables import write_tables
from eval.results import CellResult, Metric
from eval.sweep.clocked import clocked_names, timed_as
from eval.tracking import content
from obsdiff import patterns, registry
from obsdiff.errors import SpecError

TIMES = {"block_ms": [3.11, 3.22, 3.33], "denoiser_ms": [7.11, 7.22, 7.33], "pipeline_ms": [71.1, 72.2, 73.3]}
RATIOS = {"block_speedup": 1.171, "block_speedup_quartiles": [1.151, 1.191], "speedup": 1.272}
LATENCY = TIMES | RATIOS | {"speedup_quartiles": [1.252, 1.292]}
LATENCY |= {"batch": {"size": 2, **{key: LATENCY[key] for key in LATENCY if key != "pipeline_ms"}}}
LATENCY |= {"pipeline_speedup": 1.373, "pipeline_speedup_quartiles": [1.353, 1.393]}


def clock_metrics(latency: dict) -> dict[str, Metric]:
    """The metrics of a clock as measure() has them."""
    made = {}
    for name in clocked_names():
        entry = registry.load("eval.model_metrics", name)
        value, quartiles = entry.compute(Model.of_times(latency))
        about = {key: getattr(entry.TRAITS, key) for key in ("title", "unit", "higher_is_better")}
        made[name] = Metric(**about, value=value, quartiles=list(quartiles))
    return made


def measured(cell) -> CellResult:
    record, own = record_of(cell), timed_as(cell)
    metrics = {name: metric for name, metric in record.metrics.items() if name not in clocked_names()}
    zeros = {"zeros": LATENCY | {"share": 0.7}} if cell.method == "dense" else {}
    clocked = clock_metrics(LATENCY) if own == "cell" else {}
    return replace(record, metrics=metrics | clocked, latency={"of": own} | zeros)


@pytest.fixture(scope="module")
def records() -> list[CellResult]:
    """Masks and smaller layers of two methods at two seeds, beside the dense model."""
    cells = [cell_of("dense", seed=seed) for seed in (0, 1)]
    for pattern in ("unstructured", "2:4", "structured"):
        cells += [cell_of(m, 0.5, s, pattern=pattern) for m in ("wanda", "obs_diff") for s in (0, 1)]
    return [measured(cell) for cell in cells]


def test_a_clock_is_asked_only_by_those_that_say_so(profiles):
    """Contract over all entries: CLOCKED needs the timings, and the others do without them."""
    model = profiles["structured"]
    for name in entries("eval.model_metrics"):
        entry = registry.load("eval.model_metrics", name)
        entry.compute(Model.of_times(model.latency) if entry.TRAITS.clocked else Model(model.checkpoint, model.profile))
        assert entry.TRAITS.timed or not entry.TRAITS.clocked
        if entry.TRAITS.clocked:
            with pytest.raises(KeyError):
                entry.compute(Model(model.checkpoint, model.profile))


@pytest.mark.parametrize(("method", "pattern"), [c for c in combinations() if c[0] in ("dense", "obs_diff", "l1_norm")])
def test_masks_stand_with_the_dense_model_and_smaller_layers_do_not(method, pattern):
    own = method == "dense" or patterns.resolve(pattern).structured
    cell = cell_of(method, pattern=pattern)
    assert timed_as(cell) == ("cell" if own else "dense")


@pytest.mark.parametrize(("method", "latency"), [("obs_diff", LATENCY), ("dense", {})])
def test_metrics_have_times_exactly_where_the_cell_is_timed(method, latency, tmp_path, monkeypatch):
    names = registry.names
    monkeypatch.setattr(registry, "names", lambda package: [] if package.startswith("eval") else names(package))
    pictures = type("P", (), {"about": {"reference": {}, "fid_features": 1, "features": 1}, "judges": {}})
    with pytest.raises(SpecError, match=r"latency: .* given timings"):
        measure(tmp_path / cell_of(method, 0.5 * (method != "dense")).path, pictures, Model.of_times(latency), [], {})


def test_tables_say_as_dense_and_show_the_row_that_was_measured(records, tmp_path):
    write_tables(Analysis(records), tmp_path)
    text = (tmp_path / "summary.md").read_text()
    table = [line.split("|")[1:-1] for line in text.partition("## Cost")[2].splitlines() if line.startswith("|")]
    head, rows = [c.strip() for c in table[0]], [[c.strip() for c in row] for row in table[2:]]
    timed = [i for i, title in enumerate(head) if re.search(r"speed-up|denoiser step|pipeline", title)]
    assert len(timed) == 3
    for row in rows:
        stands = row[head.index("pattern")] in ("unstructured", "2:4") and row[0] != "dense"
        assert all((row[i] == AS_DENSE) == stands for i in timed)
    (zeros,) = [row for row in rows if row[0].startswith("dense, 70 % zeros")]
    ratios = [*2 * ["1.27 [1.25, 1.29]"], "1.37 [1.35, 1.39]"]
    assert [zeros[i] for i in timed] == ratios == [rows[-1][i] for i in timed]
    # what one job took says nothing beside another's: milliseconds are of the dense model alone
    assert "7.22 [7.11, 7.33] ms" in text and "72.2 [71.1, 73.3] ms" in text and text.count("7.22") == 1
    assert "1.272 [1.252, 1.292] times as fast with a full batch" in text
    found = pd.read_csv(tmp_path / "summary.csv")
    masks = found["pattern"].isin(["unstructured", "2:4"]) & (found["method"] != "dense")
    assert (found["timed_as"] == "dense").tolist() == masks.tolist()
    for name in clocked_names():
        assert found.loc[masks, name].isna().all() and found.loc[~masks, name].notna().all()


def test_a_sweep_of_other_shapes_alone_has_no_row_of_zeros(records, tmp_path):
    write_tables(Analysis([r for r in records if r.cell.pattern == "structured" or not r.cell.amount]), tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert AS_DENSE not in text and "% zeros" not in text


def test_sentences_and_figures_leave_out_what_was_not_timed(records, tmp_path):
    by_pattern = {setting.pattern: setting for setting in Analysis(records).settings}
    for pattern, setting in by_pattern.items():
        said = " ".join(sentences(setting))
        assert ("times as fast" in said) == (pattern == "structured")
        assert ("takes the dense one's time" in said) == (pattern != "structured")
    draw = registry.load("eval.figures", "latency").draw
    masks = [record for record in records if record.cell.pattern != "structured"]
    assert draw(Analysis(masks), [tmp_path] * len(masks)) is None
    figure = draw(Analysis(records), [tmp_path] * len(records))
    titles = [part._suptitle.get_text() for part in figure.subfigs]
    assert [("structured" in t and "unstructured" not in t) for t in titles] == [True]


def test_paper_compare_and_runs_say_as_dense(records):
    at = {(r.cell.pattern, r.cell.method): r for r in records if r.cell.seed == "0"}
    row = Row({"method": "obs_diff", "pattern": "2:4"}, paper={"block_ms": 9.0, "speedup": 1.2, "fid": 3.0})
    titles, lines = shown(join([row], [at["2:4", "obs_diff"], at["structured", "obs_diff"]]))
    for line, number in zip(lines, (False, True), strict=True):
        for title in (COLUMNS["block_ms"].title, COLUMNS["speedup"].title):
            text = line[titles.index(f"{title}: paper") + 1]
            assert (text == AS_DENSE) != number and (number == bool(re.fullmatch(r"[\d.]+", text)))
    table = described([at["2:4", "obs_diff"]], [at["structured", "obs_diff"]])
    (line,) = [line for line in table.splitlines() if line.startswith("speed-up, full batch")]
    assert line.split()[-3:] == ["as", "dense", "1.272"]
    both = described([at["2:4", "obs_diff"]], [at["2:4", "wanda"]])
    assert re.search(rf"times and speed-ups +{AS_DENSE} +{AS_DENSE}", both)
    mask, small = (content.tags(at[pattern, "obs_diff"]) for pattern in ("unstructured", "structured"))
    assert mask["obsdiff.latency"] == AS_DENSE and "obsdiff.latency" not in small
    assert AS_DENSE in mask["mlflow.note.content"] and AS_DENSE not in small["mlflow.note.content"]
    assert not clocked_names() & {name for name, *_ in content.scalars(at["unstructured", "obs_diff"])}


def test_page_of_masks_has_no_number_of_a_clock_but_the_dense_rows(records, tmp_path):
    masks = [record for record in records if record.cell.pattern != "structured"]
    folders_of(masks, tmp_path)
    write_tables(Analysis(masks), tmp_path)
    (tmp_path / "figures").mkdir()
    paths = [tmp_path / f"{i}.json" for i in range(len(masks))]
    for path in paths:
        path.touch()
    write_report(Analysis(masks), paths, tmp_path, "s", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    rows = [row for row in re.findall(r"<tr>.*?</tr>", page, re.S) if AS_DENSE in row]
    assert len(rows) == 4 and "times as fast as the dense one" not in page
    assert all(row.count(AS_DENSE) == 3 for row in rows)


def test_old_records_keep_their_times():
    record = sweep(("wanda",), (0.5,), (0,))[1]
    assert not as_dense([record], "speedup") and math.isfinite(record.metrics["speedup"].value)
