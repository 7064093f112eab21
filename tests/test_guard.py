"""What is not a plain dense denoiser is refused by name before anything is pruned or loaded, or works as one."""

from functools import partial

import pytest
import torch
from conftest import SAMPLING, spec_of
from parts import denoiser_and_names, put
from torch import nn
from torch.nn.utils import parametrize

from obsdiff import models, prune
from obsdiff.errors import LayerError, SpecError
from obsdiff.pipelines import guard


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
