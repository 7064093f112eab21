"""Metrics of pictures: contracts over whatever entries are there, and references."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import entries
from PIL import Image
from scipy import linalg

from eval.features import Evaluator
from eval.image_metrics import Pictures
from eval.measure import load_pictures, made_by
from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.prompts import read_prompts

ROOT = Path(__file__).parents[1]


FAKE = """
from PIL import Image, ImageChops, ImageStat


class Model:
    def score(self, prompt, path):
        picture = Image.open(path).convert("L")
        return -ImageStat.Stat(ImageChops.difference(picture, ImageChops.offset(picture, 1))).mean[0] / len(prompt)


def load(name, device, med_config):
    print("load checkpoint from", name)
    return Model()
"""


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> Path:
    """An ImageReward that scores smooth pictures high, and weights of its."""
    folder = tmp_path_factory.mktemp("reward")
    (folder / "ImageReward.py").write_text(FAKE)
    for name in ("ImageReward.pt", "med_config.json"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch, reward):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(reward))
    monkeypatch.setenv("IMAGE_REWARD_ROOT", str(reward))


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[Pictures, Pictures]:
    """Real pictures in the dense model's place, and noise in the random one's."""
    folder, real = tmp_path_factory.mktemp("pictures"), ROOT / "zoo/emoji-data/reference"
    prompts = read_prompts(ROOT / "zoo/emoji-data/benchmark.csv")[:48]
    (folder / "noise").mkdir()
    (folder / "reference").mkdir()
    draw = np.random.default_rng(0)
    for prompt in prompts:
        noise = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "noise" / f"{prompt.id}.png")
    for path in sorted(real.glob("*.png"))[:300]:
        (folder / "reference" / path.name).symlink_to(path)
    judge = Evaluator(str(ROOT / "zoo/emoji-clip"), folder / "cache")
    python = {"image_reward": sys.executable}
    good, bad = (
        load_pictures(images, real, folder / "reference", prompts, judge, interpreters=python)
        for images in (real, folder / "noise")
    )
    return good, bad


@pytest.mark.parametrize("name", entries("eval.image_metrics"))
def test_image_metric_ranks_real_above_noise(name, seen):
    entry = registry.load("eval.image_metrics", name)
    (good, samples), (bad, _) = entry.compute(seen[0]), entry.compute(seen[1])
    assert isinstance(entry.TITLE, str) and "{" not in entry.UNIT.format(network="n")
    assert good > bad if entry.HIGHER_IS_BETTER else good < bad
    assert samples is None or (len(samples) == 48 and sum(samples) / 48 == pytest.approx(good, rel=1e-4))
    assert entry.compute(seen[0])[0] == good


@pytest.mark.parametrize("name", entries("eval.image_metrics"))
def test_image_metric_says_how_it_was_made(name, seen):
    record = made_by(registry.load("eval.image_metrics", name), seen[0])
    assert json.loads(json.dumps(record)) == record and record["pictures"] == 48
    assert re.fullmatch(r"[a-z-]+ (\d+\.\d+.*|unknown)", record["library"])
    if name in ("fid", "kid"):
        assert record["reference"]["count"] == 300 and len(record["reference"]["sha256"]) == 64
        assert record["fid_features"]["resize"] == "32 bicubic squash"


def test_fid_is_the_frechet_distance(seen):
    entry = registry.load("eval.image_metrics", "fid")
    a, b = seen[1].reference.double(), seen[1].fid_features.double()
    assert torch.equal(seen[1].fid_features, seen[1].features * 128**0.5)
    mean = (a.mean(0) - b.mean(0)).square().sum()
    root = linalg.sqrtm((torch.cov(a.T) @ torch.cov(b.T)).numpy()).real
    expected = mean + torch.cov(a.T).trace() + torch.cov(b.T).trace() - 2 * np.trace(root)
    assert entry.compute(seen[1])[0] == pytest.approx(float(expected), rel=1e-3)
    twin = replace(seen[0], fid_features=seen[0].reference)
    assert entry.compute(twin)[0] == pytest.approx(0, abs=1e-2)


def test_reward_worker_that_fails_is_one_error(seen, monkeypatch, tmp_path):
    entry = registry.load("eval.image_metrics", "image_reward")
    assert entry.made_by(seen[0])["weights"] == "ImageReward-v1.0"
    with pytest.raises(SpecError, match=r"'/nowhere/python' gave no scores .*conda env create"):
        entry.compute(replace(seen[0], interpreters={"image_reward": "/nowhere/python"}))
    monkeypatch.setenv("IMAGE_REWARD_ROOT", str(tmp_path))
    with pytest.raises(SpecError, match=r"ImageReward\.pt is missing; run `hf download THUDM/ImageReward"):
        entry.compute(replace(seen[0], device="meta"))


def test_evaluator_refuses_what_is_neither_folder_nor_architecture(tmp_path):
    with pytest.raises(SpecError, match="neither an open_clip folder nor architecture:weights"):
        Evaluator("nothing", tmp_path)
    with pytest.raises(SpecError, match=r"has no open_clip_config\.json"):
        Evaluator(str(tmp_path), tmp_path)
