"""Metrics of pictures and models: contracts over whatever entries are there, and references."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLING, entries, spec_of
from PIL import Image
from scipy import linalg

from eval.features import Evaluator
from eval.image_metrics import Pictures
from eval.measure import load_pictures, made_by
from eval.model_metrics import Model
from eval.profile import counts, latency, layer_errors
from obsdiff import prune, registry, save_pruned
from obsdiff.checkpoint import Pruned, read_pruned
from obsdiff.errors import SpecError
from obsdiff.prompts import Prompt, read_prompts
from obsdiff.surgery import State

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


@pytest.fixture(scope="module")
def profiles(tmp_path_factory) -> dict[str, Model]:
    """The tiny model, dense, randomly pruned and with half its heads and neurons, saved and profiled for real."""
    family = registry.load("obsdiff.models", "sd3")
    found = {}
    for name, method, pattern in (
        ("dense", "dense", "unstructured"),
        ("random", "random", "unstructured"),
        ("structured", "random", "structured"),
    ):
        folder = tmp_path_factory.mktemp(name)
        pipe, dense = family.tiny(), family.tiny()
        save_pruned(pipe, folder, prune(pipe, spec_of(method, pattern=pattern)))
        pruned, prompts = read_pruned(folder), [Prompt("0", "a cat"), Prompt("1", "a dog")]
        before = {key: value.clone() for key, value in dense.transformer.state_dict().items()}
        profile = {
            "layers": layer_errors(dense, pruned, prompts, SAMPLING, 0),
            "latency": latency(dense, pruned, prompts[0], SAMPLING),
        }
        after = dense.transformer.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before), "profiling left the dense model changed"
        found[name] = Model(pruned.manifest, profile | counts(dense, pruned))
    return found


@pytest.mark.parametrize("name", entries("eval.model_metrics"))
def test_model_metric(name, profiles):
    entry = registry.load("eval.model_metrics", name)
    values = {name: entry.compute(model)[0] for name, model in profiles.items()}
    assert all(np.isfinite(v) and v >= 0 for v in values.values())
    if not entry.TIMED:
        pruned = "structured" if name == "denoiser_tflops" else "random"  # zeros are multiplied like any number
        assert values["dense"] != values[pruned]
        if entry.HIGHER_IS_BETTER is not None:
            assert (values["dense"] > values[pruned]) == entry.HIGHER_IS_BETTER
    low, high = entry.compute(profiles["dense"])[1] or (0, np.inf)
    assert low <= values["dense"] <= high


def test_measured_sparsity_is_the_asked_one(profiles):
    assert registry.load("eval.model_metrics", "measured_sparsity").compute(profiles["random"])[0] == 0.5
    assert all(layer["sparsity"] == 0.5 for layer in profiles["random"].profile["layers"])


def test_structured_parameters_are_gone_and_readers_have_errors(profiles):
    dense, small = profiles["dense"].profile, profiles["structured"].profile
    gone = sum(layer["removed"] for layer in profiles["structured"].checkpoint["layers"])
    assert small["prunable"]["total"] - small["prunable"]["nonzero"] == gone
    assert small["prunable"]["total"] == dense["prunable"]["total"]
    assert 0 < len(small["layers"]) < len(dense["layers"])
    assert all(layer["sparsity"] == 0.5 and 0 < layer["error"] < 2 for layer in small["layers"])


def test_layer_error_of_zeroed_layer_is_one_and_biases_count():
    family = registry.load("obsdiff.models", "sd3")
    pipe = family.tiny()
    name = family.units(pipe.transformer)[0][0][0]
    layer = pipe.transformer.get_submodule(name)
    nothing, prompts = torch.zeros_like(layer.weight), [Prompt("0", "a cat")]
    errors = layer_errors(pipe, Pruned({"sites": []}, {name: State(nothing, None)}), prompts, SAMPLING, 0)
    assert [e["error"] for e in errors if e["name"] == name] == [pytest.approx(1, rel=1e-4)]
    assert all(e["error"] == 0 for e in errors if e["name"] != name)
    moved = State(layer.weight.detach(), layer.bias.detach() + 0.1)
    errors = layer_errors(pipe, Pruned({"sites": []}, {name: moved}), prompts, SAMPLING, 0)
    assert [e["name"] for e in errors if e["error"] > 0] == [name]
