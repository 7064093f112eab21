"""Inception-v3 features against torchmetrics' own, on random weights; and where networks are looked for."""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from eval.images.image_files import ImageFiles
from eval.network_weights import check_judges, default_inception, inception_weights, judge_files
from eval.networks.distances import Given
from eval.networks.features import Evaluator
from eval.networks.inception import Inception
from obsdiff.errors import SpecError


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # features of order one
        torch.save(net.state_dict(), path)
    return path


def drawn(folder: Path, sizes: list[tuple[int, int]], suffix: str = "png") -> ImageFiles:
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for i, (height, width) in enumerate(sizes):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{suffix}")
    return ImageFiles.of_folder(folder)


def test_features_are_those_of_torchmetrics(weights, tmp_path):
    """On uint8 images, without antialiasing; the Fréchet distance is a function of the sums compared here."""
    real, drawn_ones = drawn(tmp_path / "real", [(40, 56)] * 5), drawn(tmp_path / "own", [(64, 64)] * 4)
    network = Inception(f"inception:{weights}", tmp_path / "cache")
    theirs = FrechetInceptionDistance(feature_extractor_weights_path=str(weights), antialias=False)
    ours = FrechetInceptionDistance(feature=Given(2048)).eval()
    for files, is_real in ((real, True), (drawn_ones, False)):
        features = network.images(files)
        assert features.shape == (len(files), 2048) and features.dtype == torch.float32
        ours.update(features, real=is_real)
        theirs.update(next(files.batches()), real=is_real)
    for state in ("features_sum", "features_cov_sum", "features_num_samples"):
        for side in ("real", "fake"):
            a, b = getattr(ours, f"{side}_{state}"), getattr(theirs, f"{side}_{state}")
            assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-4) and b.double().abs().mean() > 0.1


def test_images_of_all_sizes_are_read_one_by_one(weights, tmp_path):
    files = drawn(tmp_path / "mixed", [(30, 50), (64, 20), (299, 299)], "jpg")
    network = Inception(f"inception:{weights}", tmp_path / "cache")
    features = network.images(files, batch=2)
    assert not torch.allclose(features[0], features[1], rtol=1e-2)
    alone = network.images(files.paths[1:2])
    assert torch.allclose(alone[0], features[1], rtol=1e-4, atol=1e-5)
    net = network._loaded
    network._loaded = None
    assert torch.equal(network.images(files), features) and network._loaded is None and net is not None


def test_batches_read_no_further_than_asked(tmp_path):
    files = drawn(tmp_path / "some", [(8, 8)] * 5)
    files.paths[4].write_bytes(b"no image")
    batches = files.batches(2)
    assert [next(batches).shape, next(batches).shape] == [(2, 3, 8, 8)] * 2
    with pytest.raises(SpecError, match=r"4\.png' cannot be read: it is not PNG"):
        next(batches)


def test_missing_inception_weights_are_told_and_never_fetched_unasked(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
    assert default_inception().parent == Path(torch.hub.get_dir()) / "checkpoints"
    for name in ("inception", "inception:/no/such.pth"):
        with pytest.raises(SpecError, match=r"finds no weights at .*\.pth; put https://.* or say inception:download"):
            Inception(name, tmp_path / "cache")
    with pytest.raises(SpecError, match="'vgg' is not inception, inception:/path/to/weights or inception:download"):
        inception_weights("vgg")

    def fetch(url: str, path: str, hash_prefix: str) -> None:
        assert url.endswith(f"-{hash_prefix}.pth")
        Path(path).write_text("weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    fetched = Inception("inception:download", tmp_path / "cache")
    assert fetched.path == default_inception() and inception_weights("inception") == fetched.path


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_weights_that_are_none_are_refused_and_not_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    files = drawn(tmp_path / "some", [(8, 8)] * 2)
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for name in ("bad.pth", "other.pth"):
        with pytest.raises(SpecError, match=r"holds no Inception-v3 weights of torch-fidelity; put https"):
            Inception(f"inception:{tmp_path / name}", tmp_path / "cache").images(files)
    assert not (tmp_path / "ran").exists()


def test_judges_are_checked_before_any_job(tmp_path):
    (tmp_path / "clip.pt").touch()
    good = {"evaluator": f"ViT-B-16-quickgelu:{tmp_path / 'clip.pt'}", "image_reward": sys.executable}
    check_judges(good)
    assert judge_files(good) == [tmp_path / "clip.pt"]
    assert {path.name for path in judge_files({"evaluator": "zoo/emoji-clip"})} >= {"tokenizer.json"}
    for key, value, message in (
        ("evaluator", "ViT-B-16-quickgelu:/no/such.pt", "'/no/such.pt', the weights of ViT-B-16-quickgelu, is not a"),
        ("fid_features", "inception:/no/such.pth", "finds no weights at /no/such.pth"),
        (
            "image_reward",
            "/no/python",
            "is not a Python interpreter; make one by `conda env create -f envs/image-reward",
        ),
    ):
        with pytest.raises(SpecError, match=rf"evaluation\.{key}: .*{message}"):
            check_judges(good | {key: value})


def test_evaluator_by_tag_must_be_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SpecError, match=r"run `hf download timm/vit_base_patch16_clip_224\.openai`, or give a file"):
        Evaluator("ViT-B-16-quickgelu:openai", tmp_path)
    with pytest.raises(SpecError, match=r"'opennai' is neither a file nor weights of ViT-B-16-quickgelu \(openai"):
        Evaluator("ViT-B-16-quickgelu:opennai", tmp_path)
    with pytest.raises(SpecError, match="'ViT-B-61' is not an architecture of open_clip"):
        Evaluator("ViT-B-61:openai", tmp_path)
    repository = tmp_path / "models--timm--vit_base_patch16_clip_224.openai"
    for name in ("refs/main", "snapshots/1/open_clip_model.safetensors"):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text("1")
    found = Evaluator("ViT-B-16-quickgelu:openai", tmp_path)
    assert found.about["resize"] == "224 bicubic shortest" and len(found.hash) == 64


def test_evaluator_of_own_weights(tmp_path):
    """`architecture:/path`: told by the file's content, one caption a row whatever the batch."""
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    (tmp_path / "own-clip.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "own-clip.json")
    hashes = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(open_clip.create_model("own-clip").state_dict(), tmp_path / "weights.pt")
        judge = Evaluator(f"own-clip:{tmp_path / 'weights.pt'}", tmp_path / "cache")
        hashes.add(judge.hash)
    assert len(hashes) == 2
    features = judge.images(drawn(tmp_path / "some", [(40, 30), (50, 32)], "jpg"))
    assert features.shape == (2, 8) and torch.allclose(features.norm(dim=1), torch.ones(2))
    texts = [f"caption {i}" for i in range(5)]
    whole = judge.captions(texts)
    again = Evaluator(judge.name, tmp_path / "other").captions(texts, batch=2)
    assert torch.allclose(whole, again, atol=1e-5) and not torch.allclose(whole[0], whole[1], atol=1e-3)
