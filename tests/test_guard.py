"""What is not a plain dense denoiser is refused by name before anything is pruned or loaded, or works as one."""

from functools import partial

import pytest
import torch
from conftest import SAMPLING, entries, spec_of
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn.utils import parametrize

from obsdiff import Source, matrices, models, packages, prune, registry, targets
from obsdiff.calibration.runs import Calibration
from obsdiff.errors import LayerError, SpecError
from obsdiff.models import _tiny
from obsdiff.pipelines import guard
from obsdiff.pipelines.loading import place


def denoiser_and_names(family):
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    return pipe, denoiser, packages.layers(family.units(denoiser))


def put(denoiser: nn.Module, name: str, make) -> None:
    """Replace a layer by what `make` makes of it."""
    parent, _, last = name.rpartition(".")
    setattr(denoiser.get_submodule(parent), last, make(denoiser.get_submodule(name)))


class Adapter(nn.Module):
    """A layer inside another module, as peft's BaseTunerLayer has it."""

    active_adapters = ("style", "subject")

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.ModuleDict({name: nn.Linear(layer.in_features, 2) for name in self.active_adapters})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x)


class Double(nn.Linear):
    """A subclass that computes something else, as bitsandbytes' and GGUF's layers do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Same(nn.Linear):
    """A subclass that is a linear layer and nothing else."""


class Codes(torch.Tensor):
    """A tensor subclass as the weight of an ordinary linear layer, as torchao has it."""


def retyped(layer: nn.Linear, cls: type) -> nn.Linear:
    layer.__class__ = cls
    return layer


def with_weight(layer: nn.Linear, weight: torch.Tensor) -> nn.Linear:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def patched(layer: nn.Linear) -> nn.Linear:
    layer.forward = lambda input: input
    return layer


def parametrised(layer: nn.Linear) -> nn.Linear:
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    return layer


def pruned_by_torch(layer: nn.Linear) -> nn.Linear:
    from torch.nn.utils.prune import l1_unstructured

    return l1_unstructured(layer, "weight", 0.5)


def weight_normed(layer: nn.Linear) -> nn.Linear:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


def broken(layer: nn.Linear, value: float) -> nn.Linear:
    with torch.no_grad():
        layer.weight[-1, 0] = value
    return layer


ODD = {
    "adapter": (Adapter, r"it has an adapter \(style, subject\) of type .*unload_lora_weights\(\)"),
    "subclass": (partial(retyped, cls=Double), "test_guard.Double, which does not compute as torch.nn.Linear does"),
    "tensor subclass": (lambda x: with_weight(x, x.weight.detach().as_subclass(Codes)), "its weight is a Codes, not"),
    "int8": (lambda x: with_weight(x, x.weight.detach().to(torch.int8)), "its weight is torch.int8; prune the model"),
    "float8": (lambda x: with_weight(x, x.weight.detach().to(torch.float8_e4m3fn)), "its weight is torch.float8_e4m3"),
    "another module": (lambda x: nn.Sequential(x), "it is a torch.nn.modules.container.Sequential, not a torch.nn.Li"),
    "patched": (patched, r"its forward\(\) was replaced"),
    "parametrised": (parametrised, "its weight is computed from other tensors"),
    "torch prune": (pruned_by_torch, "its weight is computed from other tensors"),
    "weight norm": (weight_normed, "its weight is computed from other tensors"),
    "reshaped": (lambda x: with_weight(x, x.weight.detach()[:, :3]), r"its weight is \(\d+, 3\), not"),
    "compiled apart": (lambda x: torch.compile(x, backend="eager"), r"replaced by torch.compile\(block\); use block"),
    "nan": (partial(broken, value=float("nan")), "weight: 1 of [0-9,]+ values are NaN or infinite; load the weights"),
    "inf": (partial(broken, value=-float("inf")), "weight: 1 of [0-9,]+ values are NaN or infinite"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_layer_that_is_not_plain_is_refused_by_name(family, kind):
    make, message = ODD[kind]
    pipe, denoiser, names = denoiser_and_names(family)
    name = names[len(names) // 2]
    put(denoiser, name, make)
    with pytest.raises(LayerError, match=rf"^{name}[.:].*{message}"):
        prune(pipe, spec_of("magnitude"))


def test_several_odd_layers_are_counted_and_a_plain_subclass_is_fine(family):
    pipe, denoiser, names = denoiser_and_names(family)
    put(denoiser, names[0], partial(retyped, cls=Same))
    guard.check(pipe)
    for name in names[1:]:
        put(denoiser, name, partial(retyped, cls=Double))
    with pytest.raises(LayerError, match=rf"^{names[1]}: .*\({len(names) - 2} more like it\)"):
        guard.check(pipe)


def test_an_adapter_on_a_layer_that_is_never_pruned_is_refused_too(family):
    pipe, denoiser, names = denoiser_and_names(family)
    other = next(n for n, m in denoiser.named_modules() if isinstance(m, nn.Linear) and n not in names)
    put(denoiser, other, Adapter)
    with pytest.raises(LayerError, match=f"^{other}: it has an adapter"):
        guard.check(pipe)


def test_non_finite_weights_outside_of_linear_layers_are_named(family):
    pipe, denoiser, _ = denoiser_and_names(family)
    name, tensor = list(denoiser.named_parameters())[-1]
    with torch.no_grad():
        tensor.view(-1)[:2] = float("nan")
    with pytest.raises(LayerError, match=f"^{name}: 2 of {tensor.numel():,} values are NaN or infinite"):
        guard.check(pipe)


@pytest.mark.parametrize("dtype", guard.FLOATING)
def test_finite_finds_one_value_in_every_dtype(dtype):
    tensor = torch.randn(7, 9).to(dtype)
    assert guard.finite(tensor) and guard.finite(tensor[:0])
    for value in (float("nan"), float("inf"), -float("inf")):
        odd = tensor.clone()
        odd[3, 5] = value
        assert not guard.finite(odd)


def test_fused_projections_are_refused_and_unfusing_is_enough(family):
    pipe, denoiser, _ = denoiser_and_names(family)
    denoiser.fuse_qkv_projections()
    with pytest.raises(LayerError, match=r": its projections are fused.*unfuse_qkv_projections\(\)"):
        prune(pipe, spec_of("magnitude"))
    denoiser.unfuse_qkv_projections()
    assert prune(pipe, spec_of("magnitude")).sparsity == pytest.approx(0.5, abs=1e-3)


def ip_processor(family):
    from diffusers.models import attention_processor
    from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

    if family.TRAITS.network == "SD3Transformer2DModel":
        return attention_processor.SD3IPAdapterJointAttnProcessor2_0(32, 32, 16, 32)
    if family.TRAITS.network == "FluxTransformer2DModel":
        return FluxIPAdapterAttnProcessor(32, 32)
    return attention_processor.IPAdapterAttnProcessor2_0(32, 32)


def test_ip_adapters_are_refused_by_attention(family):
    pipe, denoiser, _ = denoiser_and_names(family)
    name, attention = next((n, m) for n, m in denoiser.named_modules() if hasattr(m, "set_processor"))
    before = attention.processor
    attention.set_processor(ip_processor(family))
    with pytest.raises(LayerError, match=rf"^{name}.processor: a \w*IPAdapter\w* brings weights.*unload_ip_adapter"):
        guard.check(pipe)
    attention.set_processor(before)
    guard.check(pipe)


def test_caches_and_hooks_of_diffusers_are_refused_until_they_are_off(family):
    from diffusers import PyramidAttentionBroadcastConfig
    from diffusers.hooks import apply_layerwise_casting

    pipe, denoiser, _ = denoiser_and_names(family)
    if hasattr(denoiser, "enable_cache"):
        denoiser.enable_cache(
            PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500)
        )
        with pytest.raises(LayerError, match=r"diffusers' hook pyramid_.*disable_cache\(\)"):
            guard.check(pipe)
        denoiser.disable_cache()
        guard.check(pipe)
    apply_layerwise_casting(denoiser, torch.float8_e4m3fn, torch.float32)
    with pytest.raises(LayerError, match="diffusers' hook layerwise_casting changes how it runs"):
        guard.check(pipe)


def compiled_whole(pipe, family) -> None:
    setattr(pipe, family.TRAITS.denoiser, torch.compile(getattr(pipe, family.TRAITS.denoiser), backend="eager"))


def compiled_in_place(pipe, family) -> None:
    getattr(pipe, family.TRAITS.denoiser).compile(backend="eager")


EAGER: dict = {}
"""family → its tiny pipeline, pruned without compiling anything, and the report"""


@pytest.mark.parametrize("compiled", [compiled_whole, compiled_in_place])
def test_a_compiled_denoiser_that_was_called_is_pruned_as_the_eager_one(family, compiled):
    """Hooks that are registered after the first call of compiled code are not called by it."""
    other = family.tiny()
    compiled(other, family)
    embeds = family.encode(other, ["a cat"], SAMPLING)

    def picture(pipe):
        generator = torch.Generator().manual_seed(0)
        return pipe(**embeds, **SAMPLING.arguments(), generator=generator, output_type="pt").images

    spec = spec_of("obs_diff", pattern="structured", packages=2)
    if family not in EAGER:
        eager = family.tiny()
        EAGER[family] = eager, prune(eager, spec)
    eager, report = EAGER[family]
    before = picture(other)
    reports = [report, prune(other, spec)]
    left, right = (models.denoiser_of(pipe).state_dict() for pipe in (eager, other))
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    assert [layer.name for layer in reports[0].layers] == [layer.name for layer in reports[1].layers]
    after = picture(other)
    torch.testing.assert_close(after, picture(eager), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(after, before)


def test_weights_that_are_not_in_memory_are_refused(family):
    pipe, denoiser, names = denoiser_and_names(family)
    put(denoiser, names[-1], lambda layer: layer.to("meta"))
    with pytest.raises(SpecError, match=f"{family.TRAITS.denoiser}.{names[-1]}.weight has no weights in memory"):
        guard.check(pipe)
    setattr(pipe, family.TRAITS.denoiser, None)
    with pytest.raises(
        SpecError, match=f"the {family.TRAITS.denoiser} is missing; what can be pruned is a {family.TRAITS.network}"
    ):
        guard.check(pipe)
    pipe = family.tiny()
    setattr(pipe, family.TRAITS.denoiser, nn.DataParallel(models.denoiser_of(pipe)))
    with pytest.raises(SpecError, match="is a DataParallel; what can be pruned"):
        guard.check(pipe)


def test_subclasses_of_supported_pipelines_work_and_others_are_refused(family):
    pipe = family.tiny()
    mine = type("Mine", (type(pipe),), {})
    pipe.__class__ = type("MineToo", (mine,), {})
    assert models.family_of(pipe) is family
    assert prune(pipe, spec_of("magnitude")).layers
    import diffusers

    other = family.TRAITS.pipeline.replace("Pipeline", "Img2ImgPipeline")
    assert hasattr(diffusers, other)
    for cls in (other, "Nonsense", "torch", "Tensor"):
        with pytest.raises(SpecError, match=f"model: a {cls} is not supported .*{family.TRAITS.pipeline}"):
            models.family_of_index({"_class_name": cls})


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


def test_numbers_that_leave_their_range_name_layer_step_and_prompts(family):
    """The layer is where NaN or infinity arises, and not the first one whose statistic shows it."""
    pipe, denoiser, names = denoiser_and_names(family)
    unit = family.units(denoiser)[-1]
    layer = models.linear(denoiser, names[len(names) // 2])
    calls = []

    def overflow(module, args, output):
        calls.append(1)
        return output + float("inf") if len(calls) % per_run > per_step * 2 else output

    handle = layer.register_forward_hook(lambda *_: calls.append(1))
    calibration = Calibration(pipe, spec_of("obs_diff", prompts=("a", "b")))
    calibration.statistics(denoiser, list(unit), "moments", "test")
    handle.remove()
    per_run = len(calls) + 1
    per_step, calls = len(calls) // pipe.num_timesteps, []
    layer.register_forward_hook(overflow)
    name = names[len(names) // 2]
    with pytest.raises(LayerError, match=rf"^{name}: its output holds NaN or infinity at step \d of \d, .*'a'"):
        calibration.blame(denoiser, slice(0, 2))


def test_text_encoders_that_overflow_are_named_before_sampling(family):
    pipe = family.tiny()
    with torch.no_grad():
        next(pipe.text_encoder.parameters()).fill_(float("nan"))
        if getattr(pipe, "text_encoder_2", None) is not None:
            next(pipe.text_encoder_2.parameters()).fill_(float("nan"))
    with pytest.raises(SpecError, match=r"prompts: the text encoders give NaN or infinity .* prompts 1 to 2 .*'a cat'"):
        prune(pipe, spec_of("obs_diff"))


def test_components_that_do_not_fit_each_other_are_one_error():
    pipe = registry.load("obsdiff.models", "sd").tiny()
    pipe.unet = UNet2DConditionModel(**_tiny.UNET, cross_attention_dim=24)
    with pytest.raises(SpecError, match=r"sampling: the StableDiffusionPipeline fails on .*'a cat'.*RuntimeError"):
        prune(pipe, spec_of("obs_diff"))
    pipe.unet = UNet2DConditionModel(**_tiny.UNET, cross_attention_dim=16, class_embed_type="timestep")
    with pytest.raises(SpecError, match="class_labels should be provided"):
        prune(pipe, spec_of("obs_diff"))


def test_memory_that_runs_out_is_one_error(family, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipe = family.tiny()
    monkeypatch.setattr(type(pipe), "__call__", full)
    with pytest.raises(SpecError, match=r"batch_size: 2 prompts at once need more memory .* give a smaller one"):
        prune(pipe, spec_of("obs_diff"))
    monkeypatch.setattr(type(pipe), "to", full)
    with pytest.raises(SpecError, match="offload: 'none' needs more memory than cuda has; give offload: model"):
        place(pipe, Source("x/y", device="cuda"))


def test_every_family_names_its_network():
    import diffusers

    for name in entries("obsdiff.models"):
        module = registry.load("obsdiff.models", name)
        assert isinstance(models.denoiser_of(module.tiny()), getattr(diffusers, module.TRAITS.network))
