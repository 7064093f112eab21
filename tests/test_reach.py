"""Which layers are in reach: every one is pruned or named, also in UNets of unusual blocks."""

import pytest
from conftest import entries, spec_of
from diffusers import UNet2DConditionModel
from parts import denoiser_and_names, put
from torch import nn

from obsdiff import matrices, models, prune, registry, targets
from obsdiff.errors import SpecError
from obsdiff.models import _tiny


def test_every_layer_is_in_reach_or_named(family):
    pipe, denoiser, names = denoiser_and_names(family)
    report = prune(pipe, spec_of("magnitude"))
    every = [name for name, module in denoiser.named_modules() if matrices.is_layer(module)]
    assert sum(report.left_dense.values()) == len(every) - len(names)
    weights = sum(models.linear(denoiser, name).weight.numel() for name in names)
    assert report.reach == pytest.approx(weights / sum(p.numel() for p in denoiser.parameters()))
    block = denoiser.get_submodule(names[0].rsplit(".", 2)[0])
    block.register_module("own", nn.Linear(4, 4))
    found = targets.reach(family, denoiser)[1]
    assert sum(found.values()) == sum(report.left_dense.values()) + 1
    assert any(name.endswith(".own") for name in found) and not any(c.isdecimal() for n in found for c in n.split("."))
    assert f"{report.reach:.1%} of the denoiser's parameters" in targets.describe_reach(report.reach, found)


UNETS = {
    "only cross-attention": {"only_cross_attention": True},
    "guidance embedded": {"time_cond_proj_dim": 8},
    "class embeddings": {"class_embed_type": "timestep"},
    "convolutional projections": {"use_linear_projection": False},
    "several heads": {"attention_head_dim": (4, 8)},
    "attention without text": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "gligen": {"attention_type": "gated", "cross_attention_dim": 16},
    "simple cross-attention": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
}


@pytest.mark.parametrize("kind", UNETS)
def test_unusual_unets_are_pruned_where_they_can_be_and_say_what_stays_dense(kind):
    family = registry.load("obsdiff.models", "sd")
    pipe = family.tiny()
    pipe.unet = UNet2DConditionModel(**_tiny.UNET | {"cross_attention_dim": 16} | UNETS[kind])
    every = [name for name, module in pipe.unet.named_modules() if matrices.is_layer(module)]
    report = prune(pipe, spec_of("magnitude"))
    assert report.layers and sum(report.left_dense.values()) + len(report.layers) == len(every)
    assert sum(not layer.removed for layer in report.layers) == 0
    assert prune(pipe, spec_of("magnitude", pattern="heads")).sites


@pytest.mark.parametrize("kind", ["only cross-attention", "guidance embedded", "attention without text"])
def test_unusual_unets_calibrate(kind):
    family = registry.load("obsdiff.models", "sd")
    pipe = family.tiny()
    pipe.unet = UNet2DConditionModel(**_tiny.UNET | {"cross_attention_dim": 16} | UNETS[kind])
    assert prune(pipe, spec_of("obs_diff", packages=1)).sparsity == pytest.approx(0.5, abs=1e-3)


def test_a_block_of_two_self_attentions_calibrates():
    from diffusers.models.attention import BasicTransformerBlock

    pipe, unet, names = denoiser_and_names(registry.load("obsdiff.models", "sdxl"))
    block = names[0].rsplit(".", 2)[0]
    put(unet, block, lambda _: BasicTransformerBlock(32, 2, 16, cross_attention_dim=32, double_self_attention=True))
    layers = [layer.name for layer in prune(pipe, spec_of("obs_diff", packages=1)).layers]
    assert f"{block}.attn2.to_k" in layers


@pytest.mark.parametrize(
    "blocks",
    [
        {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "mid_block_type": None},
        {"dual_cross_attention": True, "cross_attention_dim": 16},
    ],
)
def test_a_denoiser_without_layers_in_reach_is_refused(blocks):
    pipe = registry.load("obsdiff.models", "sd").tiny()
    pipe.unet = UNet2DConditionModel(**_tiny.UNET | blocks)
    with pytest.raises(SpecError, match="has no layer that can be pruned: its blocks are of another kind"):
        prune(pipe, spec_of("magnitude"))


def test_every_family_names_its_network():
    import diffusers

    for name in entries("obsdiff.models"):
        module = registry.load("obsdiff.models", name)
        assert isinstance(models.denoiser_of(module.tiny()), getattr(diffusers, module.TRAITS.network))
