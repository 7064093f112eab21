"""Metrics of images: contracts over whatever entries are there, and references."""

import json
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import entries
from PIL import Image
from scipy import linalg
from scipy.spatial import distance
from torchmetrics.image.kid import KernelInceptionDistance, poly_kernel, poly_mmd
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import squeezenet1_1

from eval import bootstrap as resampling
from eval import image_metrics
from eval.image_metrics import Images
from eval.loading import load_images
from eval.measure import made_by, measure
from eval.network_weights import CLIPS, check_judges, lpips_weights
from eval.networks import distances
from eval.networks.distances import Given, squared_mmd
from eval.networks.features import Evaluator
from eval.sweep.pairing import REFERENCES
from obsdiff import registry
from obsdiff.captions.prompts import read_prompts
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]


FAKE = """
from PIL import Image, ImageChops, ImageStat


class Model:
    def score(self, prompt, path):
        image = Image.open(path).convert("L")
        return -ImageStat.Stat(ImageChops.difference(image, ImageChops.offset(image, 1))).mean[0] / len(prompt)


def load(name, device, med_config):
    print("load checkpoint from", name)
    return Model()
"""


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> Path:
    """An ImageReward that scores smooth images high, and weights of its."""
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
def squeeze(tmp_path_factory) -> Path:
    """A random SqueezeNet's weights where torch.hub keeps the published ones."""
    path = tmp_path_factory.mktemp("torch") / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def seen(tmp_path_factory, squeeze, clip_folder) -> tuple[Images, Images]:
    """Real images in the dense model's place, and noise in the random one's."""
    folder, real = tmp_path_factory.mktemp("pictures"), ROOT / "zoo/emoji-data/reference"
    prompts = read_prompts(ROOT / "zoo/emoji-data/benchmark.csv")[:48]
    (folder / "noise").mkdir()
    (folder / "reference").mkdir()
    draw = np.random.default_rng(0)
    for prompt in prompts:
        noise = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "noise" / f"{prompt.id}.png")
    shown = {f"{prompt.id}.png" for prompt in prompts}
    for path in sorted(real.glob("*.png"), key=lambda path: (path.name not in shown, path.name))[:300]:
        (folder / "reference" / path.name).symlink_to(path)
    judge = Evaluator(str(ROOT / "zoo/emoji-clip"), folder / "cache")
    judges = {"image_reward": sys.executable, "lpips": f"squeeze:{squeeze}", "hps": str(ROOT / "zoo/emoji-clip")}
    judges |= dict.fromkeys(CLIPS, str(clip_folder))

    def placed(images: Path) -> list[Path]:
        return [images / f"{prompt.id}.png" for prompt in prompts]

    good, bad = (
        load_images(*files, folder / "reference", prompts, judge, judges=judges, references=REFERENCES)
        for files in ((placed(real), placed(real)), (placed(folder / "noise"), placed(real)))
    )
    return good, bad


@pytest.mark.parametrize("name", entries("eval.image_metrics"))
def test_image_metric_ranks_real_above_noise(name, seen):
    entry = registry.load("eval.image_metrics", name)
    (good, _), (bad, numbers) = entry.compute(seen[0]), entry.compute(seen[1])
    assert isinstance(entry.TRAITS.title, str) and "{" not in entry.TRAITS.unit.format(network="n")
    assert good > bad if entry.TRAITS.higher_is_better else good < bad
    replicates = np.asarray(numbers if entry.TRAITS.per == "set" else resampling.means(numbers))
    assert replicates.shape == (resampling.REPLICATES,) and np.isfinite(replicates).all()
    low, high = resampling.interval(bad, replicates)
    assert low < bad < high and abs(bad - good) > (high - low) / 2
    if entry.TRAITS.per == "prompt":
        assert len(numbers) == 48 and sum(numbers) / 48 == pytest.approx(bad, rel=1e-4)
    assert entry.compute(seen[1]) == (bad, numbers)


@pytest.mark.parametrize("name", entries("eval.image_metrics"))
def test_image_metric_says_how_it_was_made(name, seen):
    record = made_by(registry.load("eval.image_metrics", name), seen[0])
    assert json.loads(json.dumps(record)) == record and record["pictures"] == 48
    assert re.fullmatch(r"[a-z-]+ (\d+\.\d+.*|unknown)", record["library"])
    if "fid_features" in record:
        (real,) = [record[name] for name in record if name in ("reference", *REFERENCES)]
        assert real["count"] == (48 if "paired" in record else 300) and len(real["sha256"]) == 64
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


def resampled(entry: ModuleType, images: Images, which: int) -> float:
    """A metric of the images that a replicate takes, one after the other."""
    taken = torch.from_numpy(resampling.counts(len(images.features)))[which]
    rows = torch.arange(len(taken)).repeat_interleave(taken)
    return entry.compute(replace(images, features=images.features[rows], fid_features=images.fid_features[rows]))[0]


@pytest.mark.parametrize("width", [20, 128])
@pytest.mark.parametrize("name", ["fid", "cmmd"])
def test_replicates_are_values_of_resampled_images(name, width, seen):
    """In fewer dimensions than distinct images and in more."""
    entry = registry.load("eval.image_metrics", name)
    parts = ("features", "fid_features", "reference", "real_features")
    images = replace(seen[1], **{part: getattr(seen[1], part)[:, :width] for part in parts})
    replicates = entry.compute(images)[1]
    for which in (0, 499):
        assert replicates[which] == pytest.approx(resampled(entry, images, which), rel=2e-3)


@pytest.mark.parametrize("width", [20, 128])
def test_every_image_once_is_the_value(width, seen, monkeypatch):
    monkeypatch.setattr(resampling, "counts", lambda n: np.ones((1, n), dtype=int))
    own, real = seen[1].fid_features[:, :width], seen[1].reference[:, :width]
    fid = registry.load("eval.image_metrics", "fid")
    value, replicates = fid.compute(replace(seen[1], fid_features=own, reference=real))
    assert replicates == pytest.approx([value], rel=1e-4)
    for kernel, unbiased in ((poly_kernel, True), (registry.load("eval.image_metrics", "cmmd").kernel, False)):
        value, replicates = squared_mmd(own, real, kernel, unbiased)
        assert replicates == pytest.approx([value], rel=1e-9)


def test_kid_is_the_unbiased_estimate(seen):
    """Equal to torchmetrics' where both sets are of one size, to the mean of its random subsets elsewhere."""
    entry = registry.load("eval.image_metrics", "kid")
    own, real = seen[1].fid_features, seen[1].reference
    expected = 1000 * float(poly_mmd(real[:48].double(), own.double()))
    assert entry.compute(replace(seen[1], reference=real[:48]))[0] == pytest.approx(expected, rel=1e-9)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
        theirs = KernelInceptionDistance(feature=Given(own.shape[1]), subsets=100, subset_size=24).eval()
    theirs.update(real, real=True)
    theirs.update(own, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, spread = (1000 * float(x) for x in theirs.compute())
    assert entry.compute(seen[1])[0] == pytest.approx(mean, abs=4 * spread / 100**0.5)


def test_kid_of_a_replicate_has_no_pair_of_a_image_with_itself(seen):
    """A replicate that takes images i and j alone, however often, has the pair (i, j) for the images' own term."""
    own, real = seen[1].fid_features.double()[:3], seen[1].reference.double()
    taken = np.array([[1, 1, 1], [2, 1, 0], [0, 1, 2], [0, 3, 0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "counts", lambda n: taken)
        found = squared_mmd(own, real, poly_kernel, unbiased=True)[1]
    constant = poly_kernel(real, real)
    constant = (constant.sum() - constant.trace()) / (300 * 299)
    cross = poly_kernel(own, real).mean(dim=1)
    for weights, (i, j), value in zip(taken[1:3], ((0, 1), (1, 2)), found[1:3], strict=True):
        pair = poly_kernel(own, own)[i, j]
        expected = pair + constant - 2 * (torch.from_numpy(weights) * cross).sum() / 3
        assert value == pytest.approx(float(expected), rel=1e-9)
    assert found[3] == pytest.approx(float(constant - 2 * cross[1]), rel=1e-9)


def test_blocks_of_a_kernel_are_the_whole(seen, monkeypatch):
    own, real = seen[1].fid_features, seen[1].reference
    whole = [squared_mmd(own, real, poly_kernel, unbiased) for unbiased in (True, False)]
    monkeypatch.setattr(distances, "ROWS", 7)
    for unbiased, (value, replicates) in zip((True, False), whole, strict=True):
        again = squared_mmd(own, real, poly_kernel, unbiased)
        assert again[0] == pytest.approx(value, rel=1e-9) and again[1] == pytest.approx(replicates, rel=1e-9)


def test_cmmd_against_its_definition(seen):
    a, b = seen[1].features.double().numpy(), seen[1].real_features.double().numpy()
    means = [np.exp(-distance.cdist(x, y, "sqeuclidean") / 200).mean() for x, y in ((a, a), (b, b), (a, b))]
    expected = 1000 * (means[0] + means[1] - 2 * means[2])
    assert registry.load("eval.image_metrics", "cmmd").compute(seen[1])[0] == pytest.approx(expected, rel=1e-6)


def test_rank_deficient_covariance_is_told(seen):
    warning = registry.load("eval.image_metrics", "fid").warning
    text = "covariance rank-deficient: 48 images and 300 real ones in 128 dimensions"
    assert warning(seen[1]).startswith(text)
    many = torch.zeros(129, 128)
    assert warning(replace(seen[1], fid_features=many)) is None
    assert warning(replace(seen[1], fid_features=many, reference=many[1:])) is not None


def test_lpips_is_torchmetrics_own(seen, squeeze, monkeypatch):
    """Whose class finds the same file where torch.hub keeps it; so do we, named by the network alone."""
    monkeypatch.setenv("TORCH_HOME", str(squeeze.parents[2]))
    assert lpips_weights("squeeze") == squeeze
    theirs = LearnedPerceptualImagePatchSimilarity(net_type="squeeze", reduction="none", normalize=True)
    entry, images = registry.load("eval.image_metrics", "lpips_to_dense"), seen[1]
    own, dense = (next(files.batches(48)).float() / 255 for files in (images.files, images.dense_files))
    assert entry.compute(images)[1] == pytest.approx(theirs(own, dense).tolist(), rel=1e-4)
    assert entry.compute(seen[0])[0] == 0
    assert len(entry.made_by(images)["sha256"]) == 64


def test_lpips_without_its_weights_is_one_error(seen, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SpecError, match=r"evaluation.lpips: 'resnet' is not one of alex, squeeze, vgg"):
        lpips_weights("resnet")
    for name in ("alex", "alex:/no/such.pth"):
        with pytest.raises(
            SpecError, match=r"finds no weights at .*\.pth; put https://.*alexnet.* or leave the key out"
        ):
            check_judges({"evaluator": "zoo/emoji-clip", "lpips": name})
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    entry = registry.load("eval.image_metrics", "lpips_to_dense")
    with pytest.raises(SpecError, match=r"holds no weights of torchvision's squeeze; put https"):
        entry.compute(replace(seen[0], judges={"lpips": f"squeeze:{tmp_path / 'other.pth'}"}))


def test_reward_worker_that_fails_is_one_error(seen, monkeypatch, tmp_path):
    entry = registry.load("eval.image_metrics", "image_reward")
    assert entry.made_by(seen[0])["weights"] == "ImageReward-v1.0"
    with pytest.raises(SpecError, match=r"'/nowhere/python' gave no scores .*conda env create"):
        entry.compute(replace(seen[0], judges={"image_reward": "/nowhere/python"}))
    monkeypatch.setenv("IMAGE_REWARD_ROOT", str(tmp_path))
    with pytest.raises(SpecError, match=r"ImageReward\.pt is missing; run `hf download THUDM/ImageReward"):
        entry.compute(replace(seen[0], device="meta"))


def test_evaluator_refuses_what_is_neither_folder_nor_architecture(tmp_path):
    with pytest.raises(SpecError, match="neither an open_clip folder nor architecture:weights"):
        Evaluator("nothing", tmp_path)
    with pytest.raises(SpecError, match=r"has no open_clip_config\.json"):
        Evaluator(str(tmp_path), tmp_path)


def test_record_of_a_cell(profiles, seen):
    """Numbers by what a metric is of, a warning where there is one, and no metric whose judge is not named."""
    model = replace(profiles["random"], latency={})  # a mask is not timed
    cell = Path("m/random/unstructured/0.50/uniform/packages-1/options-plain/sampling-plain/calibration-plain/seed-0")
    prompts = read_prompts(ROOT / "zoo/emoji-data/benchmark.csv")[:48]
    names = set(entries("eval.image_metrics"))
    for judges in (dict(seen[1].judges), {}):
        record = measure(cell, replace(seen[1], judges=judges), model, prompts, {})
        found = json.loads(json.dumps(record.as_dict()))["metrics"]
        needs = {name: image_metrics.traits(name).needs for name in names}
        assert names & set(found) == {name for name, need in needs.items() if need is None or need in judges}
        for name in names & set(found):
            per = image_metrics.traits(name).per
            key, count = {"prompt": ("samples", 48), "set": ("replicates", resampling.REPLICATES)}[per]
            assert len(found[name][key]) == count and len({"samples", "replicates"} & set(found[name])) == 1
        assert {name for name in found if "warning" in found[name]} == {name for name in names if "fid" in name}
