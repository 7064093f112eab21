"""Method `checkpoint`: weights that somebody else pruned become a result like any other, or are refused."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SAMPLING, spec_of
from safetensors.torch import load_file, save_file

from obsdiff import models, prune, registry, save_pruned
from obsdiff.checkpoints.checkpoint import load_pruned
from obsdiff.errors import SpecError
from obsdiff.pipelines.published import files_of, require_fit
from obsdiff.source import Source

MASKS = [("magnitude", "unstructured", 0.5), ("sparsegpt", "unstructured", 0.3), ("wanda", "2:4", 0.5)]


def weights_of(family, folder: Path, method: str, pattern: str, sparsity: float, **more) -> tuple[Path, dict]:
    """Somebody's pruned denoiser, as diffusers saves it, and its tensors."""
    pipe = family.tiny()
    prune(pipe, spec_of(method, pattern=pattern, sparsity=sparsity, packages=1, **more))
    models.denoiser_of(pipe).save_pretrained(folder)
    return folder, dict(models.denoiser_of(pipe).state_dict())


def taken(family, weights: Path, pattern: str = "unstructured", sparsity: float = 0.5, **more):
    """A dense pipeline given those weights, and the report."""
    pipe = family.tiny()
    spec = spec_of("checkpoint", pattern=pattern, sparsity=sparsity, weights=str(weights), prompts=(), **more)
    return pipe, prune(pipe, spec)


@pytest.mark.parametrize(("method", "pattern", "sparsity"), MASKS)
def test_given_weights_are_the_result_and_are_reloaded_bit_for_bit(method, pattern, sparsity, family, tmp_path):
    """As any pruning's: counts, errors of weights, packed and loaded again; nothing is calibrated."""
    folder, theirs = weights_of(family, tmp_path / "theirs", method, pattern, sparsity)
    pipe, report = taken(family, folder, pattern, sparsity)
    denoiser = models.denoiser_of(pipe)
    own = denoiser.state_dict()
    assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)
    assert report.layers and report.sparsity == pytest.approx(sparsity, abs=2e-3)
    for layer in report.layers:
        assert layer.removed == int((models.linear(denoiser, layer.name).weight == 0).sum())
        assert layer.weight_error > 0 and layer.calibration_error is None
    assert not {"calibrate", "sample"} & report.seconds.keys()
    again = family.tiny()
    save_pruned(pipe, tmp_path / "ours", report)
    load_pruned(again, tmp_path / "ours")
    left = models.denoiser_of(again).state_dict()
    assert all(torch.equal(left[name], theirs[name]) for name in left)


def test_layers_that_are_the_models_own_count_as_dense(tmp_path):
    """They have no part in the sparsity, and the report names them."""
    family = registry.load("obsdiff.models", "sd3")
    excluded = "transformer_blocks.0.*"
    folder, _ = weights_of(family, tmp_path, "magnitude", "unstructured", 0.5, exclude=(excluded,))
    _, report = taken(family, folder)
    assert not any(layer.name.startswith(excluded[:-1]) for layer in report.layers)
    assert report.sparsity == pytest.approx(0.5, abs=2e-3)
    assert any(name.startswith("transformer_blocks.*") for name in report.left_dense)
    _, whole = taken(family, weights_of(family, tmp_path / "all", "magnitude", "unstructured", 0.5)[0])
    assert not any(name in whole.left_dense for name in report.left_dense.keys() - whole.left_dense.keys())
    assert len(whole.layers) > len(report.layers)


def test_moved_biases_are_taken_too(tmp_path):
    family = registry.load("obsdiff.models", "sd3")
    folder, theirs = weights_of(family, tmp_path, "wanda", "unstructured", 0.5, bias=True)
    pipe, report = taken(family, folder)
    own = models.denoiser_of(pipe).state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own) and any(x.bias_moved for x in report.layers)


def edited(folder: Path, change) -> Path:
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return folder


def first(tensors: dict, end: str) -> str:
    return min(name for name in tensors if name.endswith(end))


def test_what_is_no_pruning_of_this_model_is_refused(tmp_path):
    family = registry.load("obsdiff.models", "sd3")

    def theirs(name: str) -> Path:
        return weights_of(family, tmp_path / name, "wanda", "2:4", 0.5)[0]

    def other(tensors):
        tensors[first(tensors, "proj_out.weight")] += 1

    def unfinite(tensors):
        tensors[first(tensors, "to_q.weight")][0, 0] = float("nan")

    def unruly(tensors):
        row = tensors[first(tensors, "to_q.weight")][0]
        row[:4] = torch.tensor([1.0, 1.0, 1.0, 0.0])

    def narrow(tensors):
        name = first(tensors, "to_q.weight")
        tensors[name] = tensors[name][:-8].clone()

    def less(tensors):
        del tensors[first(tensors, "to_q.bias")]

    for change, message in (
        (other, r"another proj_out\.weight than the model \(1 such in all\), which is outside the layers"),
        (unfinite, r"numbers in .*to_q\.weight that are not finite"),
        (unruly, r"pattern: '2:4' is not that of .*: .*to_q breaks it"),
        (narrow, r"of shape .*, and the model of .*heads or neurons were removed"),
        (less, r"lacks .*to_q\.bias \(1 such in all\)"),
    ):
        with pytest.raises(SpecError, match=message):
            taken(family, edited(theirs(change.__name__), change), "2:4", None)
    with pytest.raises(SpecError, match=r"sparsity: 0\.7 is not that of .*, which is 0\.5 over the layers"):
        taken(family, theirs("less sparse"), "unstructured", 0.7)
    with pytest.raises(SpecError, match=r"sparsity: 0\.5 is not that of .*, which is 0 over"):
        family.tiny().transformer.save_pretrained(tmp_path / "dense")
        taken(family, tmp_path / "dense")


def test_headers_tell_before_any_weights_load(folders, tmp_path):
    family = registry.load("obsdiff.models", "sd3")
    source = Source(model=str(folders["sd3"]))
    good = weights_of(family, tmp_path / "good", "magnitude", "unstructured", 0.5)[0]
    require_fit(str(good), source)
    require_fit(str(next(good.glob("*.safetensors"))), source)
    require_fit(str(folders["sd3"]), source)  # a pipeline's folder: its denoiser
    with pytest.raises(SpecError, match=r"weights: .* lacks .* to be of this model"):
        require_fit(str(folders["flux"]), source)
    (path,) = good.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SpecError, match=r"^weights: .* bytes"):
        require_fit(str(good), source)


def test_places_of_weights(tmp_path):
    def place(*names: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            save_file({"a": torch.ones(1)}, folder / name)
        return str(folder)

    assert [path.name for path in files_of(place("unet/a.safetensors", "b.safetensors"), "unet")] == ["a.safetensors"]
    sharded = place("a-1.safetensors", "a-2.safetensors")
    index = {"weight_map": {"x": "a-1.safetensors", "y": "a-2.safetensors"}}
    (Path(sharded) / "a.safetensors.index.json").write_text(json.dumps(index))
    assert len(files_of(sharded, "unet")) == 2
    for where, message in (
        (place("a.safetensors", "a.fp16.safetensors"), r"several sets of weights \(a\.fp16\.safetensors, a\.saf"),
        (place("pruned.pt"), r"pruned\.pt' is a pickle.*save_file"),
        (f"{place('model.bin')}/model.bin", "is a pickle"),
        ("nowhere", "'nowhere' is neither a .safetensors file nor a diffusers folder"),
    ):
        with pytest.raises(SpecError, match=f"weights: .*{message}"):
            files_of(where, "unet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "weights: None is not what method 'checkpoint' needs"),
        ({"weights": "w", "method": "wanda"}, "weights: 'w' is not used by method 'wanda'"),
        ({"weights": " "}, "weights: ' ' is not what method 'checkpoint' needs"),
        ({"weights": "", "method": "wanda"}, "weights: '' is not used by method 'wanda'"),
        ({"weights": "w", "sparsity": 0.0}, "sparsity: 0.0 is not that of pruned weights"),
        ({"weights": "w", "bias": True}, "bias: True is not possible"),
        ({"weights": "w", "layer_sparsity": {"*": 0.5}}, "layer_sparsity: .* is not possible"),
        ({"weights": "w", "pattern": "structured"}, "pattern: 'structured' is not served by method 'checkpoint'"),
    ],
)
def test_specs_that_cannot_be(options, message):
    with pytest.raises(SpecError, match=message):
        spec_of(**{"method": "checkpoint"} | options)


def test_dense_images_and_given_ones_differ(tmp_path):
    """The pipeline draws with what it was given."""
    family = registry.load("obsdiff.models", "sd")
    folder, _ = weights_of(family, tmp_path, "magnitude", "unstructured", 0.5)
    pipe, _ = taken(family, folder)
    drawn = [
        one(
            **family.encode(one, ["a cat"], SAMPLING),
            **SAMPLING.arguments(),
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images
        for one in (pipe, family.tiny())
    ]
    assert torch.isfinite(drawn[0]).all() and not torch.equal(*drawn)
