"""Blocks, sampling and calibration on the grid; models like others; the paper's configs and their tiny scale."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.sweep import cells
from eval.sweep.config import read_model, read_record, read_sweep
from obsdiff import registry
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
BASE = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PAPER = sorted((ROOT / "config/paper").glob("*.yaml"))
SWEEPS = sorted((ROOT / "config").glob("*.yaml"))
ABLATIONS = sorted((ROOT / "config/ablations").glob("*.yaml"))
PICTURES = sorted((ROOT / "config/pictures").glob("*.yaml"))
VALUES = list(csv.DictReader((ROOT / "config/paper/values.csv").read_text().splitlines()))


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def sweep(grid: object, **more: Any):
    return read_sweep(BASE | {"grid": grid} | more)


def shipped(path: Path, **more: Any):
    """A sweep's file as Snakemake reads it: over the default one."""
    config = BASE | yaml.safe_load(path.read_text())
    if isinstance(config["grid"], dict):
        config["grid"] = BASE["grid"] | config["grid"]
    return read_sweep(config | more)


@pytest.mark.parametrize("path", [*SWEEPS, *ABLATIONS, *PAPER, *PICTURES], ids=lambda path: path.stem)
def test_no_two_cells_have_one_name(path):
    """The names of MLflow's runs and the labels of figures."""
    found = shipped(path, scale="tiny").cells
    assert len({(cell.model, cells.named(cell)) for cell in found}) == len(found)


def test_blocks_are_grids_of_their_own():
    one = {"method": ["magnitude", "obs_diff"], "sparsity": [0.5]}
    other = {"method": ["obs_diff"], "sparsity": [0.5, 0.7], "packages": [2, 4]}
    found = sweep([one, other]).cells
    assert found == sweep([one, other, one]).cells and len(set(found)) == len(found)
    assert found[: len(sweep(one).cells)] == sweep(one).cells
    assert set(found) == set(sweep(one).cells) | set(sweep(other).cells)
    assert sweep([one]).cells == sweep(one).cells


def test_seeds_and_count_stand_for_those_of_grid_and_model_files():
    """`--config seeds=3 count=10`: of any sweep, at tiny scale too."""
    grid = [{"method": ["magnitude"], "sparsity": [0.5], "seed": [7]}, {"method": ["wanda"], "sparsity": [0.5]}]
    own, more = sweep(grid), sweep(grid, seeds=3, count=10)
    assert {cell.seed for cell in own.cells} == {"0", "7"} and {cell.seed for cell in more.cells} == {"0", "1", "2"}
    assert {replace(cell, seed="0") for cell in more.cells} == {replace(cell, seed="0") for cell in own.cells}
    assert all(model["evaluation"]["count"] == 10 for model in more.models.values())
    tiny = sweep(grid, scale="tiny", count=3)
    assert all(model["evaluation"]["count"] == 3 for model in tiny.models.values())
    for key, value in (("seeds", 0), ("seeds", "x"), ("count", 1)):
        with pytest.raises(SpecError, match=f"config: {key}"):
            sweep(grid, **{key: value})


def test_sampling_and_calibration_are_axes_and_ignored_ones_neutral():
    """The model's own values and what a method has no use for make no cells; dense has the sampling, no calibration."""
    grid = {
        "method": ["magnitude", "obs_diff"],
        "sparsity": [0.5],
        "sampling": [{}, {"steps": 12}, {"steps": 5, "scheduler": "dpm++"}],
        "calibration": [{}, {"count": 8}, {"sampling": {"steps": 5}}],
    }
    found = sweep(grid)
    own, five = "plain", "scheduler=dpmpp+steps=5"
    assert [(c.method, c.sampling, c.calibration) for c in found.cells] == [
        ("dense", own, "plain"),
        ("magnitude", own, "plain"),
        ("dense", five, "plain"),
        ("magnitude", five, "plain"),
        ("obs_diff", own, "plain"),
        ("obs_diff", own, "count=8"),
        ("obs_diff", own, "sampling.steps=5"),
        ("obs_diff", five, "plain"),
        ("obs_diff", five, "count=8"),
    ]
    assert all(cells.parse(f"any/{c.path}") == c and c.dense() in found.cells for c in found.cells)
    assert {c.dense().sampling for c in found.cells if c.sampling == five} == {five}
    assert found.sampling[five] == {"steps": 5, "scheduler": "dpm++"}
    assert found.calibration == {"plain": {}, "count=8": {"count": 8}, "sampling.steps=5": {"sampling": {"steps": 5}}}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sampling": [{"step": 5}]}, r"grid\.sampling\.0\.step: no such key; did you mean 'steps'\?"),
        ({"sampling": [{"steps": 0}]}, r"grid\.sampling\.0\.steps: 0 is not allowed; give one >= 1"),
        ({"sampling": [{"scheduler": "eular"}]}, r"grid\.sampling: scheduler: 'eular' is not one of ddim, .* left out"),
        ({"sampling": [{"scheduler": "ddim"}]}, r"grid\.sampling: scheduler: 'ddim' .* StableDiffusion3Pipeline"),
        (
            {"calibration": [{"sampling": {"scheduler": "ddim"}}]},
            r"grid\.calibration\.sampling: scheduler: 'ddim' .* give one of these, or leave it out",
        ),
        ({"calibration": [{"number": 5}]}, r"grid\.calibration\.0\.number: no such key"),
        ({"calibration": [{"count": 9999}]}, r"grid\.calibration\.count: 9999 is not in \[1, 256\]"),
        ({"calibration": [{"prompts": "no.csv"}]}, r"prompts: 'no.csv' is not a file"),
        ({"sparsity": {"unstructurd": [0.5]}}, r"grid\.sparsity\.unstructurd: no such key; did you mean 'unstruct"),
        (
            {"sparsity": {"unstructured": [0.5]}, "pattern": ["unstructured", "heads"]},
            r"grid\.sparsity: has none for pattern 'heads'",
        ),
        ({"sampling": [{"height": 36}]}, r"grid\.sampling: height: 36 is not a multiple of 8, .* give 32"),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_errors_of_the_new_axes(grid, message, listed):
    block = {"method": ["obs_diff"], "sparsity": [0.5]} | grid
    message = (
        message
        if not listed
        else message.replace(r"grid\.sampling\.0", r"grid\.0\.sampling\.0").replace(
            r"grid\.calibration\.0", r"grid\.0\.calibration\.0"
        )
    )
    with pytest.raises(SpecError, match=message):
        sweep([block] if listed else block)


def test_errors_of_blocks():
    with pytest.raises(SpecError, match=r"grid: \[\] should be non-empty"):
        sweep([])
    with pytest.raises(SpecError, match=r"grid\.1: 'method' is a required property"):
        sweep([{"method": ["magnitude"]}, {"sparsity": [0.5]}])
    with pytest.raises(SpecError, match=r"models: 'sd9' is not a file"):
        sweep([{"method": ["magnitude"], "models": ["sd9"]}])
    with pytest.raises(SpecError, match=r"grid\.0\.pattern\.0: 124 is not a pattern; .* write '2:4' in quotes"):
        sweep([{"method": ["magnitude"], "pattern": [124]}])
    with pytest.raises(SpecError, match=r"grid\.method: 'l1_norm' goes with none of the others"):
        sweep([{"method": ["magnitude"]}, {"method": ["l1_norm"]}])


def test_a_model_like_another_says_what_differs(monkeypatch, tmp_path):
    base = read_record("emoji-sd3")
    (tmp_path / "emoji-sd3.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "few.yaml").write_text("like: emoji-sd3\nevaluation: {count: 9}\nsampling: {steps: 3}\n")
    monkeypatch.setattr("eval.sweep.config.MODELS", tmp_path)
    few = read_model("few")
    assert few["evaluation"] == base["evaluation"] | {"count": 9}
    assert few["sampling"] == base["sampling"] | {"steps": 3} and few["source"] == base["source"]


def test_two_prompt_files_of_one_name_make_two_cells():
    """Each is told by its name, and by its path's hash where it shares the name; whatever their order."""

    def texts(*paths: str) -> dict[str, str]:
        grid = {"method": ["obs_diff"], "sparsity": [0.5], "calibration": [{"prompts": path} for path in paths]}
        found = sweep(grid, scale="tiny").cells
        return dict(zip(paths, [c.calibration for c in found if c.method == "obs_diff"], strict=True))

    one, other = texts("a/x.csv", "b/x.csv", "y.csv"), texts("y.csv", "b/x.csv", "a/x.csv")
    assert one == other and one["y.csv"] == "prompts=y.csv" and texts("a/x.csv") == {"a/x.csv": "prompts=x.csv"}
    assert one["a/x.csv"] != one["b/x.csv"] and all(one[f"{f}/x.csv"].startswith("prompts=x-") for f in "ab")


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda p: p.stem)
def test_ablation_has_three_seeds_of_everything(path):
    found = shipped(path)
    assert yaml.safe_load(path.read_text())["name"] == path.stem
    seeds: dict = {}
    for cell in found.cells:
        seeds.setdefault(replace(cell, seed=""), []).append(cell.seed)
    assert len(seeds) > 2 and set(map(tuple, seeds.values())) == {("0", "1", "2")}


def test_options_that_a_weighting_cannot_do_without_stay():
    tables = [{"alphas": [1, 0]}, {"alphas": [0, 1]}]
    grid = {"method": ["obs_diff"], "sparsity": [0.5], "weighting": ["table", "uniform"]}
    found = sweep({**grid, "weighting": ["table"], "options": tables}).cells
    assert [c.options for c in found if c.method == "obs_diff"] == ["alphas=1_0", "alphas=0_1"]
    with pytest.raises(SpecError, match=r"alphas: \(\) is not what weighting 'table' needs"):
        sweep(grid)


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_papers_config(path):
    """At tiny scale nothing but the zoo is read; every number of the paper has a cell, or a method that we lack."""
    found = shipped(path, scale="tiny")
    config = yaml.safe_load(path.read_text())
    assert config["name"] == path.stem == f"table{config['paper']}"
    assert all(model["source"]["model"].startswith("results/tiny/") for model in found.models.values())
    assert not any({"exclude", "layer_sparsity"} & options.keys() for options in found.options.values())
    known = {*registry.names("obsdiff.methods")}
    mine = [row for row in VALUES if row["table"] == str(config["paper"])]
    assert mine
    for row in mine:
        axes = {axis: row[axis] for axis in cells.AXES if row.get(axis)}
        has = any(axes.items() <= vars(cell).items() for cell in found.cells)
        assert has == (row["method"] in known), row


@pytest.mark.parametrize("path", PICTURES, ids=lambda p: p.stem)
def test_pictures_leave_the_cells_of_the_tables_alone(path):
    """Few images, so in a folder of their own; the pruning is one that a table of the paper has, or its method."""
    config = BASE | yaml.safe_load(path.read_text())
    assert config["name"] == path.stem and config["results"] != BASE["results"]
    found = shipped(path, scale="tiny")
    assert all(record["evaluation"]["count"] == config["count"] for record in found.models.values())
    tables = [cell for table in PAPER for cell in shipped(table, scale="tiny").cells]
    known = {(c.model, c.method, c.pattern, c.packages, c.options) for c in tables}
    assert all((c.model, c.method, c.pattern, c.packages, c.options) in known for c in found.cells)


def test_papers_config_names_the_missing_file(monkeypatch, tmp_path):
    """Without the data a paper's config is refused, with the file and where it comes from."""
    for part in ("config", "zoo"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"'data/gcc3m/Train_GCC-training\.tsv' is not a file; .*https://"):
        shipped(ROOT / "config/paper/table12.yaml")


def test_every_address_of_the_data_is_told():
    """What the model files name under data/ has a line in data/README.md."""
    told = (ROOT / "data/README.md").read_text()
    for path in (ROOT / "config/models").glob("*.yaml"):
        record = read_record(path.stem)
        places = [record["calibration"]["prompts"], record["evaluation"]["prompts"], record["evaluation"]["reference"]]
        for place in places:
            assert not place.startswith("data/") or f"`{place}" in told
