"""Features on disk: made anew when what made them changed or the file is damaged; incomplete networks are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from malformed import count
from safetensors.torch import load_file, save_file

from eval.images.image_files import ImageFiles
from eval.networks import caching
from eval.networks.caching import cached
from eval.networks.features import Evaluator
from eval.networks.inception import Inception
from eval.networks.lpips import load
from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.storage import files

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "zoo/emoji-clip"


class Counting:
    """Something to compute, and how often it was."""

    def __init__(self, value: float = 1.0) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.full((4, 3), self.value)


def test_a_damaged_cache_file_is_made_again_with_one_line(tmp_path, capsys):
    compute = Counting()
    for _ in range(2):
        assert torch.equal(cached(tmp_path, ["a"], 4, compute), torch.ones(4, 3))
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    assert compute.calls == 1 and not list(tmp_path.glob("*.tmp"))
    middle = bytes([whole[-5] ^ 1])
    for i, content in enumerate((b"", whole[:20], whole[:-4], whole[:-5] + middle + whole[-4:], b"x" * 99)):
        path.write_bytes(content)
        assert torch.equal(cached(tmp_path, ["a"], 4, compute), torch.ones(4, 3)) and compute.calls == i + 2
        assert path.read_bytes() == whole and capsys.readouterr().err.count("making it again") == 1
    for other in ({"features": torch.ones(5, 3)}, {"features": torch.ones(4)}, {"others": torch.ones(4, 3)}):
        save_file(other, path)
        compute.calls = 0
        assert cached(tmp_path, ["a"], 4, compute).shape == (4, 3) and compute.calls == 1
    assert list(load_file(path)) == ["features"]


MUTATIONS = st.tuples(st.sampled_from(["cut", "flip", "zeros"]), st.floats(0, 1, exclude_max=True), st.integers(0, 7))


@pytest.mark.malformed
@given(MUTATIONS)
def test_no_damage_of_a_cache_file_changes_a_feature(tmp_path_factory, mutation):
    folder, (how, where, bit) = tmp_path_factory.mktemp("cache"), mutation
    expected = cached(folder, ["a"], 4, Counting(0.1))
    (path,) = folder.glob("*.safetensors")
    whole = path.read_bytes()
    i = int(where * len(whole))
    rest = bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :]
    path.write_bytes(whole[:i] + {"cut": b"", "flip": rest, "zeros": bytes(len(rest))}[how])
    assert torch.equal(cached(folder, ["a"], 4, Counting(0.1)), expected)
    count("caches of features", "read right")


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert cached(tmp_path / "file" / "cache", ["a"], 4, Counting()).shape == (4, 3)
    assert "cannot be written" in capsys.readouterr().err


def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path):
    with pytest.raises(SpecError, match=r"4 of 4 features are not finite; its weights are damaged"):
        cached(tmp_path, ["a"], 4, Counting(float("nan")))
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("module", ["eval.networks.features", "eval.networks.inception"])
def test_features_know_the_code_and_the_libraries_that_made_them(module, tmp_path, monkeypatch):
    """The network's module, all that reads images, and the version of every library on the way."""
    before = caching.code_of(module)
    for name in ("eval/images/opening.py", "eval/images/image_files.py", f"{module.replace('.', '/')}.py"):
        with monkeypatch.context() as patch:
            copy = shutil.copytree(ROOT / "eval", tmp_path / name / "eval")
            shutil.copytree(ROOT / "obsdiff", tmp_path / name / "obsdiff")
            patch.setattr(registry, "ROOT", copy.parent)
            registry.sources.cache_clear()
            assert caching.code_of(module) == before
            with (copy.parent / name).open("a") as file:
                file.write("# edited\n")
            registry.sources.cache_clear()
            assert caching.code_of(module) != before
    registry.sources.cache_clear()
    for library in (*caching.LIBRARIES, "open-clip-torch", "torch-fidelity"):
        with monkeypatch.context() as patch:
            own = caching.code_of(module, "open-clip-torch", "torch-fidelity")
            patch.setattr(files, "version", lambda name, other=library: "0" if name == other else "1")
            changed = caching.code_of(module, "open-clip-torch", "torch-fidelity")
            patch.setattr(files, "version", lambda name: "1")
            assert changed != caching.code_of(module, "open-clip-torch", "torch-fidelity") != own


def test_an_evaluators_features_are_kept_by_its_code(tmp_path, monkeypatch):
    files = ImageFiles.of_folder(ROOT / "zoo/emoji-data/reference").paths[:3]
    judge = Evaluator(str(CLIP), tmp_path)
    features = judge.images(files)
    monkeypatch.setattr("eval.networks.features.code_of", lambda *_: "of an earlier version")
    other = Evaluator(str(CLIP), tmp_path)
    assert torch.equal(other.images(files), features) and len(list(tmp_path.glob("*.safetensors"))) == 2
    assert other.hash == judge.hash


def edit(key: str, value: object):
    def change(folder: Path) -> None:
        path = folder / "open_clip_config.json"
        record = json.loads(path.read_text())
        *parents, last = key.split(".")
        place = record
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
        path.write_text(json.dumps(record))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "open_clip_config.json").write_text('{"model_cfg": '), r"open_clip_config\.json: not JSON"),
        (lambda f: (f / "open_clip_config.json").write_text("[]"), r"has no key model_cfg\.embed_dim"),
        (edit("model_cfg.vision_cfg.image_size", None), r"has no key model_cfg\.vision_cfg\.image_size"),
        (edit("model_cfg.text_cfg", None), r"has no key model_cfg\.text_cfg"),
        (edit("preprocess_cfg", "bicubic"), r"preprocess_cfg is not a mapping"),
        (edit("model_cfg.embed_dim", 64), r"emoji-clip: its weights, .* cannot be loaded \(.*size mismatch"),
        (lambda f: (f / "open_clip_model.safetensors").unlink(), r"has no weights \(open_clip_model\.safetensors\)"),
        (lambda f: (f / "open_clip_model.safetensors").write_bytes(b"\0" * 99), r"its weights, .* cannot be loaded"),
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer \(tokenizer\.json\)"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"or tokenizer cannot be loaded"),
    ],
)
def test_an_incomplete_evaluator_is_refused_before_any_feature(change, message, tmp_path):
    folder = shutil.copytree(CLIP, tmp_path / "emoji-clip")
    change(folder)
    with pytest.raises(SpecError, match=message) as caught:
        Evaluator(str(folder), tmp_path / "cache").captions(["a cat"])
    assert "emoji-clip" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["text", 5, [1, 2], {"features.0.weight": "text"}])
def test_weights_of_anything_else_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    files = ImageFiles.of_folder(ROOT / "zoo/emoji-data/reference").paths[:2]
    with pytest.raises(SpecError, match=r"weights\.pth holds no Inception-v3 weights"):
        Inception(f"inception:{tmp_path / 'weights.pth'}", tmp_path / "cache").images(files)
    with pytest.raises(SpecError, match=r"weights\.pth holds no weights of torchvision's squeeze"):
        load("squeeze", tmp_path / "weights.pth")
