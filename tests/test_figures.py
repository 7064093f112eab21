"""Contracts of the figures, over all entries, on records that are made up."""

from dataclasses import replace
from itertools import pairwise

import pytest
from conftest import entries
from matplotlib.colors import to_rgb
from PIL import Image
from synthetic import cell_of, folders_of, record_of, sweep

from eval import figures
from eval.analysis.analysis import Analysis
from eval.analysis.configurations import Configuration
from eval.analysis.groups import point
from eval.figures import _panels, ordered, save, write_figures
from eval.figures.deviation import short
from eval.figures.prompts import chosen
from eval.figures.weightings import curve
from obsdiff import registry

FIGURES = entries("eval.figures")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    records = sweep()
    return records, folders_of(records, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One sparsity, one seed."""
    records = sweep(("wanda", "obs_diff"), (0.5,), (0,))
    return records, folders_of(records, tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_and_says_how_to_read_it(name, whole, tmp_path):
    traits = figures.traits(name)
    assert traits.title and traits.caption.endswith(".")
    figure = registry.load("eval.figures", name).draw(Analysis(whole[0]), whole[1])
    save(figure, tmp_path, name)
    assert (tmp_path / f"{name}.svg").read_text().lstrip().startswith("<?xml")
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert min(picture.size) > 150


@pytest.mark.parametrize("name", FIGURES)
def test_same_figure_has_the_same_bytes(name, single, tmp_path):
    for side in ("one", "other"):
        save(registry.load("eval.figures", name).draw(Analysis(single[0]), single[1]), tmp_path / side, name)
    for kind in ("svg", "png"):
        one, other = ((tmp_path / side / f"{name}.{kind}").read_bytes() for side in ("one", "other"))
        assert one == other


@pytest.mark.parametrize("name", ["drift", "tradeoff"])
def test_long_and_many_labels_leave_the_axes_their_room(name, tmp_path):
    options = [f"calibration_steps={i}+{'sensitivity=both+' * 4}solver=admm" for i in range(12)]
    records = sweep(("obs_diff",), (0.5,), (0,)) + [record_of(cell_of("obs_diff", 0.5, options=o)) for o in options]
    figure = registry.load("eval.figures", name).draw(Analysis(records), folders_of(records, tmp_path))
    save(figure, tmp_path, name)
    assert all(axes.get_window_extent().width > figure.dpi for axes in figure.axes)


def test_dense_cells_alone_show_their_images(tmp_path):
    records = sweep(())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "quality.svg").write_text("of an earlier run")
    assert write_figures(Analysis(records), folders_of(records, tmp_path), tmp_path / "out") == ["pictures"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["pictures.png", "pictures.svg"]


@pytest.mark.parametrize("name", FIGURES)
def test_records_without_intervals_deviation_or_images_are_no_error(name, tmp_path):
    records = sweep(("obs_diff", "wanda"), (0.5,), (0,), dense=False, intervals=False)
    records = [replace(record, deviation=None) for record in records]
    for record in records:
        del record.metrics["fid"], record.metrics["block_speedup"]
    drawn = registry.load("eval.figures", name).draw(Analysis(records), [tmp_path] * len(records)) is not None
    assert drawn == (name in ("quality", "latency", "tradeoff", "weightings"))


def test_all_entries_are_on_the_page_once():
    assert sorted(ordered()) == FIGURES


def test_lines_are_told_apart_in_grey():
    """Lightness rises from line to line, and neighbours differ in marker and stroke."""
    styles = [_panels.style(i, 8) for i in range(8)]
    grey = [sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), to_rgb(s["color"]), strict=True)) for s in styles]
    assert all(a < b for a, b in pairwise(grey)) and grey[-1] < 0.8
    assert all(a["marker"] != b["marker"] and a["linestyle"] != b["linestyle"] for a, b in pairwise(styles))


def test_axes_leave_the_floor_out_and_bars_in():
    setting = Analysis(sweep()).settings[0]
    low, high = _panels.spanned(setting, "clip_score", None, _panels.value)
    ends = [point(setting.lines[m][0.7], "clip_score") for m in ("random", "wanda")]
    assert ends[0].value < low < ends[1].low and high > point(setting.dense, "clip_score").high


def test_dense_model_is_no_level_of_what_compares_with_it():
    """Its PSNR to itself is a cap of the metric, which would flatten all other lines."""
    drawn = _panels.panels(Analysis(sweep()), ("clip_score", "psnr_to_dense"))
    score, similarity = drawn.subfigs[0].axes
    levels = [[line for line in axis.lines if list(line.get_xdata()) == [0, 1]] for axis in (score, similarity)]
    assert [len(lines) for lines in levels] == [1, 0]
    assert similarity.get_ylim()[1] < 60


def test_settings_are_lines_of_what_compares():
    """Patterns and models apart, seeds together, the weighting in a label only where two differ."""
    cells = [cell_of("dense", seed=s) for s in (0, 1)]
    cells += [cell_of("obs_diff", 0.5, s) for s in (1, 0)] + [
        cell_of("obs_diff", 0.3),
        cell_of("obs_diff", 0.5, pattern="2:4"),
    ]
    one, other = Analysis([record_of(cell) for cell in cells]).settings
    assert (one.pattern, other.pattern) == ("unstructured", "2:4") and one.sparsities == [0.3, 0.5]
    assert list(one.lines) == list(other.lines) == ["obs_diff"] and list(one.lines["obs_diff"]) == [0.3, 0.5]
    assert [r.cell.seed for r in one.lines["obs_diff"][0.5]] == ["0", "1"] and len(one.dense) == len(other.dense) == 2
    more = [record_of(cell) for cell in (*cells, cell_of("obs_diff", 0.5, weighting="linear_increase"))]
    assert list(Analysis(more).settings[0].lines) == ["obs_diff log_decrease", "obs_diff linear_increase"]


def test_bars_are_intervals_else_the_widest_quartiles():
    records = [record_of(cell_of("wanda", 0.5, seed)) for seed in (0, 1)]
    records[1].metrics["denoiser_ms"] = replace(records[1].metrics["denoiser_ms"], quartiles=[8.0, 10.5])
    assert point(Configuration(records), "denoiser_ms") == (9.5, 8.0, 11.0)
    assert point(Configuration(records), "speedup") == (1.5, 1.5, 1.5)
    value, low, high = point(Configuration(records), "clip_score")
    assert (
        low < value < high and point(Configuration(records), "kid") is None and point(Configuration([]), "fid") is None
    )


def test_prompts_are_chosen_from_both_ends_and_the_middle():
    assert chosen(9) == [("worst", 0), ("worst", 1), ("median", 3), ("median", 4), ("best", 7), ("best", 8)]
    assert [place for _, place in chosen(3)] == [0, 1, 2] and chosen(1) == [("worst", 0)]


def test_weighting_curves_are_those_of_calibration():
    spec = {"weighting": "log_decrease", "alpha_min": 0.8, "alpha_max": 1.2, "alphas": [], "sampling": {"steps": 7}}
    label, values = curve(spec)
    assert (
        label == "log_decrease 0.8 to 1.2" and (values[0], values[-1]) == pytest.approx((1.2, 0.8)) and len(values) == 7
    )
    assert curve(spec | {"weighting": "table", "alphas": [1, 0.5]})[1][-1] == 0.5
    assert curve(spec | {"weighting": "uniform"}) == ("uniform", [1.0] * 7)


def test_blocks_have_short_names():
    names = ("transformer_blocks.3", "single_transformer_blocks.0", "down_blocks.1.attentions.0.transformer_blocks.2")
    assert [short(name) for name in names] == ["3", "single 0", "down 1.0.2"]
