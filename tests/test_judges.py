"""PickScore, HPSv2 and CLIP-IQA, on a network that is known in two libraries: the same numbers by either way."""

import json
import shutil

import pytest
import torch
from converted import OPEN
from test_metrics import seen, squeeze

from eval.network_weights import CLIPS, check_judges, judge_files
from eval.networks.features import Evaluator
from eval.networks.transformers_clip import Judge
from obsdiff import registry
from obsdiff.errors import SpecError

__all__ = ["seen", "squeeze"]


def test_pick_score_is_the_scaled_cosine(seen):
    for images in seen:
        _, scores = registry.load("eval.image_metrics", "pick_score").compute(images)
        model, *_ = Evaluator(str(OPEN), images.cache).load()
        expected = float(model.logit_scale.detach().exp()) * (images.features * images.captions).sum(dim=1)
        torch.testing.assert_close(torch.tensor(scores), expected, rtol=1e-3, atol=1e-3)


def test_hps_is_the_cosine_of_its_own_network(seen):
    for images in seen:
        hps, clip = (registry.load("eval.image_metrics", name).compute(images) for name in ("hps", "clip_score"))
        assert hps == clip


def test_clip_iqa_is_the_share_of_good_among_good_and_bad(seen):
    for images in seen:
        anchors = Evaluator(str(OPEN), images.cache).captions(["Good photo.", "Bad photo."])
        expected = (100 * images.features @ anchors.T).softmax(dim=1)[:, 0]
        _, scores = registry.load("eval.image_metrics", "clip_iqa").compute(images)
        torch.testing.assert_close(torch.tensor(scores), expected, rtol=1e-3, atol=1e-3)


def test_how_they_were_made_is_told_by_the_files(seen, clip_folder, tmp_path):
    images = seen[0]
    for key in CLIPS:
        entry = registry.load("eval.image_metrics", key)
        assert entry.made_by(images) == Judge(key, str(clip_folder)).about
    other = shutil.copytree(clip_folder, tmp_path / "other")
    record = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(record | {"logit_scale_init_value": 1.0}))
    assert Judge("pick_score", str(other)).about["sha256"] != Judge("pick_score", str(clip_folder)).about["sha256"]
    files = judge_files({"evaluator": str(OPEN), "pick_score": str(other), "hps": str(OPEN)})
    assert {other / "config.json", other / "model.safetensors", OPEN / "tokenizer.json"} <= set(files)


def without(name):
    def change(folder):
        (folder / name).unlink()

    return change


def retyped(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))


@pytest.mark.parametrize("key", CLIPS)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (shutil.rmtree, "has no config.json of a transformers model"),
        (retyped, "holds a model of type 'siglip', not 'clip'"),
        (without("model.safetensors"), r"has no weights \(\*.safetensors or \*.bin\)"),
        (without("tokenizer.json"), r"has no tokenizer \(tokenizer.json or vocab.json\)"),
        (without("processor_config.json"), r"has no image processor \(preprocessor_config.json or"),
    ],
)
def test_folders_that_lack_something_are_refused_before_any_job(clip_folder, tmp_path, key, change, why):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    check_judges({key: str(folder)})
    change(folder)
    with pytest.raises(SpecError, match=rf"evaluation.{key}: .*{why}.*hf download {CLIPS[key]}"):
        check_judges({key: str(folder)})


def test_files_that_are_damaged_are_one_error(seen, clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(SpecError, match=r"evaluation.pick_score: .* cannot be loaded .*; put the published"):
        Judge("pick_score", str(folder)).cosines(seen[0].files, seen[0].texts)


def test_an_unknown_network_of_hps_is_refused_by_its_key():
    with pytest.raises(SpecError, match=r"evaluation.hps: 'ViT-Z' is not an architecture of open_clip"):
        check_judges({"hps": "ViT-Z:openai"})
    with pytest.raises(SpecError, match=r"evaluation.hps: '/nowhere/hps.pt', the weights of ViT-H-14, is not a file"):
        check_judges({"hps": "ViT-H-14:/nowhere/hps.pt"})
