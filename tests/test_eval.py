"""Metrics, grid, pictures, tables and tracking."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLING, entries, spec_of
from PIL import Image
from scipy import linalg

from eval import cells
from eval.config import read_sweep
from eval.features import Evaluator
from eval.generate import generate
from eval.image_metrics import Pictures
from eval.model_metrics import Model
from eval.profile import counts, latency, layer_errors
from eval.tables import frame, markdown
from obsdiff import prune, registry
from obsdiff.errors import SpecError
from obsdiff.prompts import Prompt, read_prompts

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


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[Pictures, Pictures]:
    """Real pictures in the dense model's place, and noise in the random one's."""
    folder = tmp_path_factory.mktemp("pictures")
    prompts = read_prompts(ROOT / "zoo/emoji-data/benchmark.csv")[:48]
    real = [ROOT / "zoo/emoji-data/reference" / f"{p.id}.png" for p in prompts]
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(p).convert("RGB")) for p in real])).permute(0, 3, 1, 2)
    noise = torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    paths = []
    for i, picture in enumerate(noise):
        paths.append(folder / f"{i}.png")
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(paths[-1])
    judge = Evaluator(str(ROOT / "zoo/emoji-clip"), folder / "cache")
    good, bad = judge.pictures(real), judge.pictures(paths)
    captions = judge.captions([p.caption for p in prompts])
    reference = judge.pictures(sorted((ROOT / "zoo/emoji-data/reference").glob("*.png"))[:300])
    return (
        Pictures(pixels, good, captions, pixels, good, reference),
        Pictures(noise, bad, captions, pixels, good, reference),
    )


@pytest.mark.parametrize("name", entries("eval.image_metrics"))
def test_image_metric_ranks_real_above_noise(name, seen):
    entry = registry.load("eval.image_metrics", name)
    (good, samples), (bad, _) = entry.compute(seen[0]), entry.compute(seen[1])
    assert isinstance(entry.TITLE, str) and isinstance(entry.UNIT, str)
    assert good > bad if entry.HIGHER_IS_BETTER else good < bad
    assert samples is None or (len(samples) == 48 and sum(samples) / 48 == pytest.approx(good, rel=1e-4))
    assert entry.compute(seen[0])[0] == good


def test_fid_is_the_frechet_distance(seen):
    entry = registry.load("eval.image_metrics", "fid")
    a, b = seen[1].reference.double() * 128**0.5, seen[1].features.double() * 128**0.5
    mean = (a.mean(0) - b.mean(0)).square().sum()
    root = linalg.sqrtm((torch.cov(a.T) @ torch.cov(b.T)).numpy()).real
    expected = mean + torch.cov(a.T).trace() + torch.cov(b.T).trace() - 2 * np.trace(root)
    assert entry.compute(seen[1])[0] == pytest.approx(float(expected), rel=1e-3)
    twin = replace(seen[0], features=seen[0].reference)
    assert entry.compute(twin)[0] == pytest.approx(0, abs=1e-2)


def test_evaluator_refuses_what_is_neither_folder_nor_architecture(tmp_path):
    with pytest.raises(SpecError, match="neither an open_clip folder nor architecture:weights"):
        Evaluator("nothing", tmp_path)
    with pytest.raises(SpecError, match=r"has no open_clip_config\.json"):
        Evaluator(str(tmp_path), tmp_path)


@pytest.fixture(scope="module")
def profiles() -> dict[str, Model]:
    """The tiny model, dense and randomly pruned, profiled for real."""
    family = registry.load("obsdiff.models", "sd3")
    found = {}
    for method in ("dense", "random"):
        pipe, dense = family.tiny(), family.tiny()
        report = prune(pipe, spec_of(method))
        weights = {layer.name: family.denoiser(pipe).get_submodule(layer.name).weight for layer in report.layers}
        prompts = [Prompt("0", "a cat"), Prompt("1", "a dog")]
        profile = {
            "layers": layer_errors(dense, weights, prompts, SAMPLING, 0),
            "latency": latency(pipe, prompts[0], SAMPLING, 1),
        } | counts(pipe)
        found[method] = Model(report.as_dict(), profile)
    return found


@pytest.mark.parametrize("name", entries("eval.model_metrics"))
def test_model_metric(name, profiles):
    entry = registry.load("eval.model_metrics", name)
    values = {method: entry.compute(model)[0] for method, model in profiles.items()}
    assert all(np.isfinite(v) and v >= 0 for v in values.values())
    if not entry.TIMED:
        assert values["dense"] != values["random"]
        if entry.HIGHER_IS_BETTER is not None:
            assert (values["dense"] > values["random"]) == entry.HIGHER_IS_BETTER
    low, high = entry.compute(profiles["dense"])[1] or (0, np.inf)
    assert low <= values["dense"] <= high


def test_measured_sparsity_is_the_asked_one(profiles):
    assert registry.load("eval.model_metrics", "measured_sparsity").compute(profiles["random"])[0] == 0.5
    assert all(layer["sparsity"] == 0.5 for layer in profiles["random"].profile["layers"])


def test_layer_error_of_zeroed_layer_is_one():
    family = registry.load("obsdiff.models", "sd3")
    pipe = family.tiny()
    name = family.units(family.denoiser(pipe))[0][0][0]
    weight = family.denoiser(pipe).get_submodule(name).weight
    errors = layer_errors(pipe, {name: torch.zeros_like(weight)}, [Prompt("0", "a cat")], SAMPLING, 0)
    assert [e["error"] for e in errors if e["name"] == name] == [pytest.approx(1, rel=1e-4)]
    assert all(e["error"] == 0 for e in errors if e["name"] != name)


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
        ("grid.sparsitty", [0.5], r"grid\.sparsitty: no such key; did you mean 'sparsity'\?"),
        ("threads", 0, r"threads: 0 is not allowed; give one >= 1"),
        ("pruning.damping", -1, r"pruning\.damping: -1 is not allowed; give one > 0"),
    ],
)
def test_config_errors(path, value, message):
    with pytest.raises(SpecError, match=message):
        read_sweep(changed(path, value))


def test_generation_goes_on_where_it_stopped(family, tmp_path):
    pipe = family.tiny()
    prompts = [Prompt(str(i), text) for i, text in enumerate(("a cat", "a dog", "a sun", "a moon", "a tree"))]
    checkpoint = {"base": "b", "weights_sha256": "w"}
    generate(pipe, checkpoint, prompts, SAMPLING, 0, tmp_path)
    first = (tmp_path / "manifest.json").read_text()
    kept = (tmp_path / "0.png").stat().st_mtime_ns
    (tmp_path / "3.png").unlink()
    generate(pipe, checkpoint, prompts, SAMPLING, 0, tmp_path)
    assert (tmp_path / "manifest.json").read_text() == first and (tmp_path / "0.png").stat().st_mtime_ns == kept
    generate(pipe, checkpoint | {"weights_sha256": "x"}, prompts, SAMPLING, 0, tmp_path)
    assert (tmp_path / "0.png").stat().st_mtime_ns != kept
    pictures = json.loads(first)["pictures"]
    assert json.loads((tmp_path / "manifest.json").read_text())["pictures"] == pictures
    assert len(set(pictures.values())) == len(prompts)
    generate(pipe, checkpoint, prompts, SAMPLING, 1, tmp_path)
    assert not set(json.loads((tmp_path / "manifest.json").read_text())["pictures"].values()) & set(pictures.values())


def test_pictures_do_not_depend_on_the_batch(family, tmp_path):
    pipe = family.tiny()
    prompts = [Prompt(str(i), text) for i, text in enumerate(("a cat", "a dog", "a sun"))]
    for size in (1, 3):
        sampling = replace(SAMPLING, batch_size=size)
        generate(pipe, {"base": "b", "weights_sha256": "w"}, prompts, sampling, 0, tmp_path / str(size))
    for p in prompts:
        one, other = (np.asarray(Image.open(tmp_path / f / f"{p.id}.png")).astype(int) for f in ("1", "3"))
        assert abs(one - other).max() <= 1


def record(cell: cells.Cell, value: float) -> dict:
    about = {"title": "FID", "unit": "u", "higher_is_better": False}
    names = ("fid", "kid", "clip_score", "recall_at_1", "cosine_to_dense", "psnr_to_dense", "layer_error")
    names += ("denoiser_ms", "pipeline_ms", "pruning_seconds", "pruning_memory")
    metrics = {name: {"value": value} | about for name in names}
    metrics["denoiser_ms"]["quartiles"] = [value - 1, value + 1]
    spec = {"damping": 0.01, "sampling": {"steps": 3}, "prompts": "x"}
    return {
        "cell": cells.axes_of(cell),
        "hash": cells.cell_hash({"cell": cell.path, "value": value}),
        "provenance": {"spec": spec, "reference": {"count": 9}, "evaluator": {"name": "e"}},
        "prompts": ["a", "b"],
        "metrics": metrics,
        "layers": [{"name": "l", "error": 0.1, "sparsity": 0.5}] * 3,
    }


def test_tables_have_a_row_a_cell_and_mark_the_best():
    grid = read_sweep(CONFIG).cells
    rows = [record(cell, float(i)) for i, cell in enumerate(grid)]
    table = frame(rows)
    assert list(table.columns[:7]) == list(cells.AXES) and len(table) == len(grid)
    assert table["fid"].tolist() == [float(i) for i in range(len(grid))]
    assert {"denoiser_ms_q1", "denoiser_ms_q3"} <= set(table.columns)
    lines = markdown(rows).splitlines()
    assert sum("**" in line for line in lines) == 2
    assert not any("**" in line for line in lines if line.startswith("| dense"))


def test_tracking_resumes_and_never_duplicates(tmp_path):
    import mlflow

    from eval import tracking

    grid = read_sweep(CONFIG).cells[:3]

    def write(value: float) -> list[Path]:
        paths = []
        for cell in grid:
            folder = tmp_path / "cells" / cell.path
            for prompt in ("a", "b"):
                (folder / "images").mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4)).save(folder / "images" / f"{prompt}.png")
            (folder / "checkpoint").mkdir(exist_ok=True)
            (folder / "checkpoint" / "manifest.json").write_text("{}")
            (folder / "metrics.json").write_text(json.dumps(record(cell, value)))
            paths.append(folder / "metrics.json")
        return paths

    def runs() -> list:
        client = tracking.client_of(tmp_path)
        home = client.get_experiment_by_name("test").experiment_id
        return list(client.search_runs([home]))

    out = tmp_path / "mlflow.json"
    paths = write(1.0)
    tracking.track(paths[:1], "sweep", "test", [], tmp_path, out)
    client = tracking.client_of(tmp_path)
    unfinished = json.loads(out.read_text())["runs"][grid[0].path]
    client.update_run(unfinished, "RUNNING")
    tracking.track(paths, "sweep", "test", paths[:1], tmp_path, out)
    tracking.track(paths, "sweep", "test", paths[:1], tmp_path, out)
    found = runs()
    assert len(found) == 4 and {r.info.status for r in found} == {"FINISHED"}
    parent = json.loads(out.read_text())["parent"]
    children = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent]
    assert len(children) == 3 and unfinished in {r.info.run_id for r in children}
    child = children[0]
    assert child.data.metrics["fid"] == 1.0 and child.data.params["sampling.steps"] == "3"
    artifacts = {a.path for a in client.list_artifacts(child.info.run_id)}
    assert artifacts == {"pictures.png", "metrics.json", "manifest.json"}
    assert len(client.get_metric_history(child.info.run_id, "layer_error_by_layer")) == 3
    tracking.track(write(2.0), "sweep", "test", [], tmp_path, out)
    assert len(runs()) == 7
    assert sum(tracking.SUPERSEDED in r.data.tags for r in runs()) == 3
    mlflow.set_tracking_uri(None)
