"""Metrics of pictures and models: contracts over whatever entries are there, and references."""

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
from eval.model_metrics import Model
from eval.profile import counts, latency, layer_errors
from obsdiff import prune, registry, save_pruned
from obsdiff.checkpoint import Pruned, read_pruned
from obsdiff.errors import SpecError
from obsdiff.prompts import Prompt, read_prompts
from obsdiff.surgery import State

ROOT = Path(__file__).parents[1]


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
        assert values["dense"] != values["random"]
        if entry.HIGHER_IS_BETTER is not None:
            assert (values["dense"] > values["random"]) == entry.HIGHER_IS_BETTER
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
