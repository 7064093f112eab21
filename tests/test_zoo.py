"""What ships in zoo/: it opens, is small, is licensed, and knows its world better than chance."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from synthetic import manifest_of

from eval.images.generate import generate
from eval.images.image_files import ImageFiles
from eval.networks.features import Evaluator
from eval.sweep.config import MODELS, read_model
from obsdiff import Sampling, Source, load_pipeline, models
from obsdiff.captions.prompts import read_prompts

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "zoo"
SHIPPED = [p.stem for p in (ROOT / MODELS).glob("*.yaml") if (ZOO / p.stem).is_dir()]
LIMIT_MB = {"emoji-sd3": 18, "emoji-unet": 10, "emoji-flux": 10, "emoji-clip": 8}


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", LIMIT_MB)
def test_folder_is_small_safe_and_described(name):
    files = [p for p in (ZOO / name).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= LIMIT_MB[name] * 1e6
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    card = (ZOO / name / "README.md").read_text()
    assert "Apache-2.0" in card and "R@1" in card
    assert (ZOO / name / "loss.svg").exists() if "loss.svg" in card else "log of this run is lost" in card


def test_readme_code_runs(tmp_path, monkeypatch):
    """Plain from_pretrained opens the folder, and the README's example prunes, saves and reloads it."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "zoo").symlink_to(ZOO)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code[1], "README.md", "exec"), names)
    weights = [names[pipe].transformer.state_dict() for pipe in ("pipe", "again")]
    assert names["report"].sparsity == pytest.approx(0.5, abs=1e-4)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_captions_are_disjoint_and_have_images():
    benchmark, calibration = (read_prompts(ZOO / "emoji-data" / f"{s}.csv") for s in ("benchmark", "calibration"))
    assert len(benchmark) == 256
    assert not {p.caption for p in benchmark} & {p.caption for p in calibration}
    pictures = {p.stem for p in (ZOO / "emoji-data/reference").glob("*.png")}
    assert {p.id for p in benchmark} <= pictures and not {p.id for p in calibration} & pictures
    with (ZOO / "emoji-data/benchmark.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["id", "caption"]


def test_evaluator_knows_the_benchmark(tmp_path):
    prompts = read_prompts(ZOO / "emoji-data/benchmark.csv")
    judge = Evaluator("zoo/emoji-clip", tmp_path)
    pictures = judge.images([ZOO / "emoji-data/reference" / f"{p.id}.png" for p in prompts])
    captions = judge.captions([p.caption for p in prompts])
    found = (pictures @ captions.T).argmax(dim=1) == torch.arange(len(prompts))
    assert found.float().mean() >= 0.9


@pytest.mark.parametrize("name", SHIPPED)
def test_generator_draws_what_it_is_asked(name, tmp_path):
    about = read_model(name)
    prompts = read_prompts(about["evaluation"]["prompts"])[:48]
    pipe = load_pipeline(Source(**about["source"]))
    assert 3e6 <= sum(p.numel() for p in models.denoiser_of(pipe).parameters()) <= 10e6
    assert (
        type(pipe).__name__
        == json.loads((ROOT / about["source"]["model"] / "model_index.json").read_text())["_class_name"]
    )
    generate(pipe, manifest_of("dense"), prompts, Sampling(**about["sampling"]), 0, tmp_path)
    paths = [tmp_path / f"{p.id}.png" for p in prompts]
    assert next(ImageFiles(paths).batches()).shape[2:] == (about["sampling"]["height"], about["sampling"]["width"])
    judge = Evaluator(about["evaluation"]["evaluator"], tmp_path / "cache")
    everything = read_prompts(about["evaluation"]["prompts"])
    nearest = (judge.images(paths) @ judge.captions([p.caption for p in everything]).T).argmax(dim=1)
    assert (nearest == torch.arange(len(prompts))).float().mean() >= 0.5
