"""What a pipeline must be before it is pruned or given a checkpoint; checked once, and refused by the layer's name.

Pruning changes `weight` of plain linear layers. Anything that puts another tensor or another forward() between that
weight and the image (an adapter, a fused projection, a quantised layer, a cache) would be passed over in silence, so
each is refused here with what to do about it. A denoiser that torch.compile() wrapped as a whole is fine: whatever
needs its hooks runs inside `eager()`.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff import matrices, models, packages
from obsdiff.errors import LayerError, SpecError
from obsdiff.matrices import Layer
from obsdiff.sampling import Sampling

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""dtypes of weights that can be pruned"""
WRAPPED = ("base_layer", "original_module", "lora_layer")
"""attributes that hold the layer that an adapter is around, or the adapter (peft, and diffusers before it)"""
MELT = (
    "call pipe.fuse_lora() and then pipe.unload_lora_weights() to prune the model with its adapters in the weights, "
    "or pipe.unload_lora_weights() alone to prune it without them"
)


def check(pipe: Any, sampling: Sampling | None = None, sites: bool = False, convolutions: bool = False) -> None:
    """Raise unless pruning this pipeline's denoiser, or loading a pruned checkpoint into it, does what it says.

    The weights are read once, to find NaN and infinity; everything else is read from the modules alone.

    Args:
        sampling: of a pruning run; a pipeline whose class has no family of its own samples once (models.family_of).
        sites: whether it prunes heads or neurons.
        convolutions: as PruneSpec has it.

    Raises:
        SpecError: the pipeline's class is not supported, it has no denoiser or another one, or its weights are not in
            memory (sequential offload, a device map).
        LayerError: a layer is adapted, fused, quantised, compiled on its own, hooked or parametrised, or holds NaN or
            infinity. The message begins with the layer's name.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    check_network(family, denoiser)
    check_placement(pipe, family)
    for look in (compiled_apart, hooked, adapted, fused):
        refuse(look(denoiser))
    with eager():
        family = models.family_of(pipe, sampling, sites)
    names = packages.layers(models.units(family, denoiser, convolutions))
    if not names:
        raise SpecError(
            f"model: this {family.TRAITS.network} has no layer that can be pruned: its blocks are of another kind"
        )
    refuse(odd_layers(denoiser, names))
    refuse(non_finite(denoiser))


def eager() -> AbstractContextManager[None]:
    """Inside the block compiled networks run as they are written, so that their hooks are called."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def refuse(problems: Iterator[str]) -> None:
    """Raise the first problem, and say how many there are beside it."""
    found = list(problems)
    if found:
        more = len(found) - 1
        raise LayerError(found[0] + (f" ({more} more like it)" if more else ""))


def check_network(family: ModuleType, denoiser: Any) -> None:
    """The denoiser is there, and of the class that the family knows, or inherits from it."""
    if family.TRAITS.network not in (cls.__name__ for cls in type(denoiser).__mro__):
        what = "missing" if denoiser is None else f"a {type(denoiser).__name__}"
        raise SpecError(
            f"model: the {family.TRAITS.denoiser} is {what}; what can be pruned is a {family.TRAITS.network}"
        )


def check_placement(pipe: Any, family: ModuleType) -> None:
    """The denoiser's weights are in memory, and no hook moves them layer by layer."""
    if getattr(pipe, "hf_device_map", None):
        raise SpecError("device_map: the pipeline is spread over devices; call pipe.reset_device_map() first")
    denoiser = models.denoiser_of(pipe)
    if offload_of(pipe) == "sequential":
        raise SpecError(
            "offload: 'sequential' leaves no weights to change on the device; prune with offload: model, and load a "
            "checkpoint before pipe.enable_sequential_cpu_offload()"
        )
    for name, tensor in denoiser.state_dict().items():
        if tensor.is_meta:
            raise SpecError(
                f"model: {family.TRAITS.denoiser}.{name} has no weights in memory (meta device); load them first"
            )


def offload_of(pipe: Any) -> str:
    """none, model or sequential, as in Source.offload."""
    if getattr(pipe, "_all_hooks", None):
        return "model"
    components = [c for c in pipe.components.values() if isinstance(c, nn.Module)]
    hooked = any(hasattr(module, "_hf_hook") for component in components for module in component.modules())
    return "sequential" if hooked else "none"


def compiled_apart(denoiser: nn.Module) -> Iterator[str]:
    """Blocks that torch.compile() wrapped on their own: their layers have other names then."""
    for name, module in denoiser.named_modules():
        if name and hasattr(module, "_orig_mod"):
            yield f"{name}: it was replaced by torch.compile(block); use block.compile(), or compile after pruning"


def hooked(denoiser: nn.Module) -> Iterator[str]:
    """Modules whose calls diffusers' hooks skip, cast or move: caches, layerwise casting, group offloading."""
    for name, module in denoiser.named_modules():
        hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", None)
        if hooks:
            yield (
                f"{name or type(denoiser).__name__}: diffusers' hook {', '.join(hooks)} changes how it runs; prune or "
                "load the checkpoint before you enable caching, layerwise casting or group offloading "
                "(denoiser.disable_cache() undoes the first)"
            )


def adapted(denoiser: nn.Module) -> Iterator[str]:
    """Layers with an adapter (LoRA, DoRA, …), and attention whose processor has weights of its own (IP-Adapter)."""
    for name, module in denoiser.named_modules():
        if any(getattr(module, key, None) is not None for key in WRAPPED):
            names = getattr(module, "active_adapters", None)
            active = f" ({', '.join(map(str, names))})" if isinstance(names, list | tuple) and names else ""
            kind = f"{type(module).__module__}.{type(module).__name__}"
            yield f"{name}: it has an adapter{active} of type {kind}; {MELT}"
        processor = getattr(module, "processor", None)
        if isinstance(processor, nn.Module) and any(True for _ in processor.parameters()):
            yield (
                f"{name}.processor: a {type(processor).__name__} brings weights of its own; call "
                "pipe.unload_ip_adapter(), or set the stock attention processors again"
            )


def fused(denoiser: nn.Module) -> Iterator[str]:
    """Attention that computes with one fused projection in the place of to_q, to_k and to_v."""
    from diffusers.models.attention_processor import Attention

    for name, module in denoiser.named_modules():
        if not getattr(module, "fused_projections", False):
            continue
        # diffusers' Attention keeps the flag and the fused layers when it is unfused; its processor decides
        if isinstance(module, Attention) and "Fused" not in type(module.processor).__name__:
            continue
        yield (
            f"{name}: its projections are fused, so that to_q, to_k and to_v are not used; call "
            "unfuse_qkv_projections() of the denoiser first, and fuse them again afterwards"
        )


def odd_layers(denoiser: nn.Module, names: list[str]) -> Iterator[str]:
    """Layers that the family prunes and that are not what pruning takes them for."""
    for name in names:
        if what := oddity(models.linear(denoiser, name)):
            yield f"{name}: {what}"


def oddity(layer: Layer) -> str | None:
    """Why a layer is not a plain floating-point nn.Linear or nn.Conv2d, with what to do; None if it is one."""
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    load = "prune the model with plain layers, and quantise or wrap them afterwards"
    if "weight" not in layer._parameters:
        return (
            "its weight is computed from other tensors (a parametrisation, weight norm or mask); make it permanent "
            "with remove_parametrizations, remove_weight_norm or torch.nn.utils.prune.remove"
        )
    weight = layer.weight
    plain = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
    if type(layer).forward is not plain.forward:
        return f"a {kind}, which does not compute as torch.nn.{plain.__name__} does; {load}"
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__}, not a plain tensor; {load}"
    if weight.dtype not in FLOATING:
        return f"its weight is {weight.dtype}; {load}"
    if "forward" in vars(layer):
        return "its forward() was replaced; undo that (a hook of accelerate, or a patch of another library) first"
    expected = matrices.shape(layer) + (1, 1) * isinstance(layer, nn.Conv2d)
    if weight.shape != expected:
        return f"its weight is {tuple(weight.shape)}, not {expected} as the layer says"
    return None


def non_finite(denoiser: nn.Module) -> Iterator[str]:
    """Tensors of the denoiser that hold NaN or infinity, in one pass over them."""
    for name, tensor in denoiser.state_dict().items():
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.dtype not in FLOATING or finite(tensor):
            continue
        count = int((~torch.isfinite(tensor)).sum())
        yield (
            f"{name}: {count:,} of {tensor.numel():,} values are NaN or infinite; load the weights again (the file is "
            "damaged, or they were cast to a dtype that cannot hold them)"
        )


def finite(tensor: Tensor) -> bool:
    """Whether all values are finite. The extremes tell it without a mask as large as the tensor."""
    if not tensor.numel():
        return True
    return all(math.isfinite(float(value)) for value in tensor.detach().aminmax())
