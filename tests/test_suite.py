"""The grid, its config, images and tables."""

import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLING
from PIL import Image
from synthetic import manifest_of, metric_of, result_of

from eval.__main__ import main
from eval.images.generate import generate
from eval.images.shards import merge
from eval.report.compare import compare
from eval.report.tables import frame
from eval.results import CellResult
from eval.sweep import cells
from eval.sweep.config import read_sweep
from obsdiff import registry
from obsdiff.captions.prompts import Prompt
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
CONFIG = {
    "name": "test",
    "results": "results",
    "models": ["emoji-sd3"],
    "grid": {
        "method": ["random", "sparsegpt", "obs_diff"],
        "pattern": ["unstructured"],
        "sparsity": [0.3, 0.5],
        "weighting": ["log_decrease", "uniform"],
        "packages": [2, 4],
        "seed": [0],
    },
    "pruning": {"damping": 0.01},
    "threads": 1,
}


def changed(path: str, value: object) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_grid_has_each_result_once():
    grid = read_sweep(CONFIG).cells
    assert len(set(grid)) == len(grid) == 1 + 2 * (1 + 2 + 4)
    assert sum(cell.method == "dense" for cell in grid) == 1
    assert all(cells.parse(f"any/where/{cell.path}") == cell for cell in grid)
    more = read_sweep(changed("grid.sparsity", [0.3, 0.5, 0.7])).cells
    assert set(grid) < set(more) and {c.sparsity for c in set(more) - set(grid)} == {"0.70"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("grid.sparsity", [1.4], r"grid\.sparsity\.0: 1.4 is not allowed; give one < 1"),
        ("grid.sparsity", ["half"], r"grid\.sparsity\.0: 'half' is not allowed; give one of type number"),
        ("grid.method", ["wandaa"], r"method: 'wandaa' unknown; did you mean 'wanda'\?"),
        ("grid.weighting", ["cosinus"], r"weighting: 'cosinus' unknown.*uniform"),
        ("models", ["sd9"], r"models: 'sd9' is not a file of config/models \(.*emoji-sd3.*\)"),
        (
            "grid.sparsity",
            {"unstructured": [1.4]},
            r"grid\.sparsity\.unstructured\.0: 1.4 is not allowed; give one < 1",
        ),
        ("grid.pattern", [124], r"grid\.pattern\.0: 124 is not a pattern; YAML takes .* write '2:4' in quotes"),
        ("grid.pattern", ["2by4"], r"pattern: '2by4' unknown"),
        ("grid.method", ["l1_norm", "wanda"], r"grid\.method: 'l1_norm' goes with none of the others"),
        ("grid.packages", ["2GB"], r"packages: '2GB' is not an integer >= 1, 'unit'"),
        (
            "grid.options",
            [{"compensat": False}],
            r"grid\.options\.0\.compensat: no such key; did you mean 'compensate'",
        ),
        ("grid.options", [{"group": "column"}], r"group: 'column' is not one of"),
        ("grid.sparsitty", [0.5], r"grid\.sparsitty: no such key; did you mean 'sparsity'\?"),
        ("threads", 0, r"threads: 0 is not allowed; give one >= 1"),
        ("pruning.damping", -1, r"pruning\.damping: -1 is not allowed; give one > 0"),
    ],
)
def test_config_errors(path, value, message):
    with pytest.raises(SpecError, match=message):
        read_sweep(changed(path, value))


def test_patterns_and_options_make_each_result_once():
    """What a method ignores or does not serve makes no cells; N:M has its own sparsity; a dict gives it by pattern."""
    config = changed("grid.method", ["magnitude", "l1_norm", "obs_diff"])
    config["grid"] |= {
        "pattern": ["unstructured", "2:4", "structured"],
        "sparsity": {"unstructured": [0.5, 0.6], "structured": [0.2]},
        "options": [{}, {"compensate": False}, {"alphas": [1, 0.5]}, {"exclude": ["*.0.*"]}],
        "weighting": ["log_decrease"],
        "packages": [4, "unit"],
    }
    found = read_sweep(config)
    by_method = {m: {c for c in found.cells if c.method == m} for m in ("dense", "magnitude", "l1_norm", "obs_diff")}
    assert {m: len(c) for m, c in by_method.items()} == {
        "dense": 1,
        "magnitude": 4 * 2,
        "l1_norm": 1 * 2,
        "obs_diff": 4 * 2 * 3,
    }
    assert {(c.pattern, c.sparsity) for c in by_method["magnitude"]} == {
        ("unstructured", "0.50"),
        ("unstructured", "0.60"),
        ("2:4", "0.50"),
        ("structured", "0.20"),
    }
    assert all(":" not in c.path and cells.parse(f"x/{c.path}") == c for c in found.cells)
    assert found.options["compensate=false"] == {"compensate": False} and found.options["plain"] == {}
    assert len({c.options for c in by_method["obs_diff"]}) == 3
    asked = {"a_b": {"x.*": 0.5}, "c": [1, 2], "d": None, "e": False, "f": [], "g": "a b"}
    assert list(cells.flags(asked)) == ["--a-b", "x.*", "0.5", "--c", "1", "2", "--no-e", "--g", "a b"]


def test_sources_are_what_is_imported():
    found = set(registry.sources("eval.report.tables", "obsdiff.methods.dsnot_wanda", "obsdiff.targets"))
    assert {"eval/report/tables.py", "eval/sweep/cells.py", "obsdiff/registry.py", "obsdiff/spec.py"} <= found
    assert {"obsdiff/methods/dsnot.py", "obsdiff/methods/wanda.py", "obsdiff/solver/statistics.py"} <= found
    assert not {"obsdiff/pruning.py", "eval/figures/__init__.py", "obsdiff/methods/magnitude.py"} & found


def test_generation_goes_on_where_it_stopped(family, tmp_path):
    pipe = family.tiny()
    prompts = [Prompt(str(i), text) for i, text in enumerate(("a cat", "a dog", "a sun", "a moon", "a tree"))]
    checkpoint = manifest_of()
    generate(pipe, checkpoint, prompts, SAMPLING, 0, tmp_path)
    first = (tmp_path / "manifest.json").read_text()
    kept = (tmp_path / "0.png").stat().st_mtime_ns
    (tmp_path / "3.png").unlink()
    generate(pipe, checkpoint, prompts, SAMPLING, 0, tmp_path)
    assert (tmp_path / "manifest.json").read_text() == first and (tmp_path / "0.png").stat().st_mtime_ns == kept
    generate(pipe, manifest_of(weights_sha256="x" * 64), prompts, SAMPLING, 0, tmp_path)
    assert (tmp_path / "0.png").stat().st_mtime_ns != kept
    pictures = json.loads(first)["pictures"]
    assert json.loads((tmp_path / "manifest.json").read_text())["pictures"] == pictures
    hashes = {entry["sha256"] for entry in pictures.values()}
    assert len(hashes) == len(prompts)
    generate(pipe, checkpoint, prompts, SAMPLING, 1, tmp_path)
    others = json.loads((tmp_path / "manifest.json").read_text())["pictures"]
    assert not {entry["sha256"] for entry in others.values()} & hashes


def test_shards_draw_what_one_job_draws(family, tmp_path):
    """Byte by byte and whatever their number; a shard that was killed goes on; those of another run are refused."""
    pipe, checkpoint = family.tiny(), manifest_of()
    prompts = [Prompt(str(i), f"caption {i}") for i in range(7)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    generate(pipe, checkpoint, prompts, SAMPLING, 0, whole)
    for shards in (3, 6):
        for shard in range(shards, 0, -1):
            generate(pipe, checkpoint, prompts, SAMPLING, 0, parts, shard, shards)
            assert not (parts / "manifest.json").exists()
        merge(parts, prompts, shards)
        assert (parts / "manifest.json").read_text() == (whole / "manifest.json").read_text()
        for path in (parts / "manifest.json", parts / "1.png", parts / "6.png"):
            path.unlink()
    generate(pipe, manifest_of(weights_sha256="x" * 64), prompts, SAMPLING, 0, parts, 1, 3)
    assert {p.name for p in parts.glob("*.png")} == {"0.png", "1.png"}
    with pytest.raises(SpecError, match="are not of one run; remove that folder and rerun"):
        merge(parts, prompts, 3)
    with pytest.raises(SpecError, match=r"shard: 4 is not in \[1, 3\]"):
        generate(pipe, checkpoint, prompts, SAMPLING, 0, parts, 4, 3)


def test_images_do_not_depend_on_the_batch(family, tmp_path):
    pipe = family.tiny()
    prompts = [Prompt(str(i), text) for i, text in enumerate(("a cat", "a dog", "a sun"))]
    for size in (1, 3):
        sampling = replace(SAMPLING, batch_size=size)
        generate(pipe, manifest_of(), prompts, sampling, 0, tmp_path / str(size))
    for p in prompts:
        one, other = (np.asarray(Image.open(tmp_path / f / f"{p.id}.png")).astype(int) for f in ("1", "3"))
        assert abs(one - other).max() <= 1


def record(cell: cells.Cell, value: float, **more: Any) -> CellResult:
    names = ("fid", "kid", "clip_score", "layer_error", "nonzero_parameters", "speedup", "pruning_seconds")
    metrics = {name: metric_of(name, value, unit="u") for name in names}
    metrics["denoiser_ms"] = metric_of("denoiser_ms", value, quartiles=[value - 1, value + 1])
    return result_of(cell, {**metrics, **more}, prompts=200)


def test_frame_has_a_row_a_cell():
    grid = read_sweep(CONFIG).cells
    table = frame([record(cell, float(i)) for i, cell in enumerate(grid)])
    assert list(table.columns[: len(cells.AXES)]) == list(cells.AXES) and len(table) == len(grid)
    assert table["fid"].tolist() == [float(i) for i in range(len(grid))]
    assert {"denoiser_ms_q1", "denoiser_ms_q3"} <= set(table.columns)


def compare_files(tmp_path: Path, rows: list[CellResult]) -> str:
    """What `python -m eval compare` prints of the first record against the second."""
    for name, row in zip(("first", "second"), rows, strict=True):
        row.write(tmp_path / f"{name}.json")
    with redirect_stdout(StringIO()) as out:
        assert (
            main(["compare", "--first", str(tmp_path / "first.json"), "--second", str(tmp_path / "second.json")]) == 0
        )
    return out.getvalue()


def test_compare_is_paired(tmp_path):
    """A constant shift has an interval of no width however much prompts differ; unpaired cells are refused."""
    cell = read_sweep(CONFIG).cells[0]
    spread = np.random.default_rng(0).normal(size=200)
    one, other = (
        record(cell, value, fid=metric_of("fid", value, samples=fid.tolist()), kid=metric_of("kid", value, samples=kid))
        for value, fid, kid in ((1.0, spread, spread.tolist()), (2.0, spread - 0.25, [0.0] * 200))
    )
    table = compare([one], [other]).set_index("metric")
    assert list(table.columns) == ["first", "second", "difference", "low", "high"]
    assert table.loc["fid"].tolist() == pytest.approx([1, 2, -1, -1, -1])
    low, high = table.loc["kid", "low"], table.loc["kid", "high"]
    assert low < -1 < high and high - low == pytest.approx(2 * 1.96 / 200**0.5, rel=0.2)
    assert np.isnan(table.loc["layer_error", "low"]) and table.loc["layer_error", "difference"] == -1
    printed = compare_files(tmp_path, [one, other])
    assert re.search(r"^FID \(evaluator features\) +1 +2 +-1 +-1 to -1 +yes, \w+$", printed, re.M)
    with pytest.raises(SpecError, match="do not pair up"):
        compare([one], [result_of(cell, {}, prompts=2)])
    with pytest.raises(SpecError, match="1 cells against 0"):
        compare([one], [])
