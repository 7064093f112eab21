"""1×1 convolutions are linear layers whose tokens are pixels: the same numbers, statistics, masks and checkpoints."""

import pytest
import torch
from conftest import spec_of
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn.functional import linear

from eval.sweep.needs import layers_needs
from obsdiff import Source, load_pruned, matrices, models, plan, prune, registry, save_pruned
from obsdiff.__main__ import main
from obsdiff.calibration.runs import Calibration
from obsdiff.errors import SpecError
from obsdiff.models import _tiny
from obsdiff.planning.tree import ASKED
from obsdiff.targets import starred

NOT = {
    "3×3": nn.Conv2d(4, 6, 3, padding=1),
    "strided": nn.Conv2d(4, 6, 1, stride=2),
    "padded": nn.Conv2d(4, 6, 1, padding=1),
    "grouped": nn.Conv2d(4, 6, 1, groups=2),
    "transposed": nn.ConvTranspose2d(4, 6, 1),
    "of one dimension": nn.Conv1d(4, 6, 1),
}
AROUND = [
    "down_blocks.1.attentions.0.proj_in",
    "mid_block.attentions.0.proj_out",
    "up_blocks.1.resnets.0.conv_shortcut",
]


def unet_of_convolutions():
    """A tiny Stable Diffusion 1, whose projections around the transformer blocks are convolutions, and its layers."""
    pipe = registry.load("obsdiff.models", "sd").tiny()
    pipe.unet = UNet2DConditionModel(**_tiny.UNET | {"cross_attention_dim": 16, "use_linear_projection": False})
    every = [name for unit in models.units(models.family_of(pipe), pipe.unet) for group in unit for name in group]
    return pipe, [name for name in every if isinstance(pipe.unet.get_submodule(name), nn.Conv2d)]


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1, padding="same", bias=False), nn.Linear(4, 6)])
def test_a_layer_multiplies_tokens_by_its_matrix(layer):
    layer = layer.double()
    x = torch.randn(2, 4, 5, 3).double() if isinstance(layer, nn.Conv2d) else torch.randn(2, 15, 4).double()
    assert matrices.is_layer(layer) and matrices.shape(layer) == tuple(matrices.matrix(layer).shape) == (6, 4)
    out = linear(matrices.tokens(layer, x), matrices.matrix(layer), layer.bias)
    torch.testing.assert_close(matrices.tokens(layer, layer(x)), out)
    narrow, bias = torch.randn(3, 4), torch.randn(3)
    matrices.put(layer, narrow, bias)
    assert matrices.shape(layer) == (3, 4) and layer.weight.dtype == torch.float64
    expected = linear(matrices.tokens(layer, x), narrow.double(), None if layer.bias is None else bias.double())
    torch.testing.assert_close(matrices.tokens(layer, layer(x)), expected)


@pytest.mark.parametrize("kind", NOT)
def test_other_convolutions_are_none(kind):
    assert not matrices.is_layer(NOT[kind])


def test_the_statistic_of_a_convolution_is_that_of_its_pixels():
    pipe, names = unet_of_convolutions()
    spec = spec_of("obs_diff", packages=1, convolutions=True)
    calibration, seen = Calibration(pipe, spec), {name: [] for name in names}
    for name in names:
        layer = pipe.unet.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0].clone()))
    with torch.no_grad():
        found = calibration.statistics(pipe.unet, [(name,) for name in names], "hessian", "test")
    for name in names:
        steps = calibration.alphas(len(seen[name]) // len(calibration.batches)).tolist() * len(calibration.batches)
        total, weight = torch.zeros(()), 0.0
        for x, alpha in zip(seen[name], steps, strict=True):
            pixels = x.permute(0, 2, 3, 1).flatten(0, 2).double()  # one row each
            total, weight = total + 2 * alpha * pixels.T @ pixels, weight + alpha * len(x)
        torch.testing.assert_close(
            found[(name,)].value(torch.device("cpu")).hessian.double(), total / weight, rtol=1e-5, atol=1e-3
        )


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("magnitude", {}),
        ("obs_diff", {"packages": 2, "pattern": "2:4"}),
        ("obs_diff", {"packages": "sequential", "bias": True}),
        ("alps", {"packages": 1, "allocation": "owl"}),
        ("solace", {}),
    ],
)
def test_convolutions_of_a_unet_are_pruned_saved_and_loaded(method, more, tmp_path):
    pipe, names = unet_of_convolutions()
    dense = {name: pipe.unet.get_submodule(name).weight.clone() for name in names}
    report = prune(pipe, spec_of(method, convolutions=True, **more))
    assert set(AROUND) <= set(names) <= {layer.name for layer in report.layers}
    assert not {starred(name) for name in names} & report.left_dense.keys()
    assert report.sparsity == pytest.approx(0.5, abs=0.01)
    for layer in (layer for layer in report.layers if layer.name in names):
        weight = pipe.unet.get_submodule(layer.name).weight
        assert weight.shape == dense[layer.name].shape and layer.removed == int((weight == 0).sum()) > 0
        if more.get("pattern") == "2:4":
            assert ((weight.flatten(1).unflatten(1, (-1, 4)) != 0).sum(dim=-1) == 2).all()
    save_pruned(pipe, tmp_path / "half", report)
    other, _ = unet_of_convolutions()
    load_pruned(other, tmp_path / "half")
    state = other.unet.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in pipe.unet.state_dict().items())


def test_convolutions_of_a_unet_stay_dense_unless_asked_for():
    pipe, names = unet_of_convolutions()
    before = {name: pipe.unet.get_submodule(name).weight.clone() for name in names}
    report = prune(pipe, spec_of("magnitude"))
    assert all(torch.equal(pipe.unet.get_submodule(name).weight, old) for name, old in before.items())
    left = sum(count for name, count in report.left_dense.items() if "conv_shortcut" in name)
    assert left == sum(name.endswith("conv_shortcut") for name in names) > 0
    more = prune(unet_of_convolutions()[0], spec_of("magnitude", convolutions=True))
    assert more.reach > report.reach


def test_a_model_without_them_refuses_before_weights_load(folders, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("obsdiff.pipelines.loading.load_component", None)
    source = ["--model", str(folders["sd3"]), "--out", str(tmp_path / "half")]
    assert main(["prune", *source, "--method", "magnitude", "--convolutions"]) == 2
    assert "convolutions: they are pruned of UNets (sd, sdxl), and the model is a StableDiffusion3Pipeline" in (
        capsys.readouterr().err
    )
    with pytest.raises(SpecError, match="convolutions: they are pruned of UNets"):
        prune(registry.load("obsdiff.models", "flux").tiny(), spec_of("magnitude", convolutions=True))


@pytest.mark.parametrize(("name", "refused"), [("sd", False), ("sd3", True)])
def test_a_sweep_asks_for_them_only_of_unets(folders, name, refused):
    model = {"source": {"model": str(folders[name])}, "family": name}
    (found,) = layers_needs("pruning", {"convolutions": True}, model)
    assert bool(found.problem) == refused
    assert not refused or found.problem.startswith("pruning.convolutions: they are pruned of UNets")
    assert not list(layers_needs("pruning", {"convolutions": False}, model))


def test_a_plan_is_of_the_same_layers(folders):
    source = Source(str(folders["sd"]))
    made = plan(source, spec_of("magnitude", convolutions=True))
    report = prune(registry.load("obsdiff.models", "sd").tiny(), spec_of("magnitude", convolutions=True))
    assert list(made.layers) == [layer.name for layer in report.layers]
    assert any(part.why == ASKED for part in plan(source, spec_of("magnitude")).parts)
    assert not any(part.why == ASKED for part in made.parts)
