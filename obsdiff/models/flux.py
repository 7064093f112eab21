"""Flux.1: `FluxTransformer2DModel`, blocks of joint attention, then single blocks on the joined image and text.

A single block projects attention and MLP together: `proj_out` reads the heads' channels first, the neurons' after.
"""

from collections.abc import Sequence
from typing import Any

import torch

from obsdiff.errors import SpecError
from obsdiff.models import Traits, _joint, _tiny
from obsdiff.packages import Group, Unit
from obsdiff.sampling import Sampling
from obsdiff.sites import Site, Span, Stream

TRAITS = Traits(
    pipeline="FluxPipeline",
    denoiser="transformer",
    network="FluxTransformer2DModel",
    schedulers=("dpm++", "euler"),
    sides=("latents", 2),
    last="proj_out",
)
T5_TOKENS = 512


def blocks(denoiser: Any) -> list[str]:
    kinds = ("transformer_blocks", "single_transformer_blocks")
    return [f"{kind}.{i}" for kind in kinds for i in range(len(getattr(denoiser, kind)))]


def units(denoiser: Any) -> list[Unit]:
    found = []
    for i, block in enumerate(denoiser.transformer_blocks):
        found += _joint.units(block, f"transformer_blocks.{i}")
    for i in range(len(denoiser.single_transformer_blocks)):
        at = f"single_transformer_blocks.{i}"
        found.append(((f"{at}.attn.to_q", f"{at}.attn.to_k", f"{at}.attn.to_v", f"{at}.proj_mlp"),))
        found.append(((f"{at}.proj_out",),))
    return found


def groups(denoiser: Any) -> list[Group]:
    blocks = enumerate(denoiser.transformer_blocks)
    joint = [group for i, block in blocks for group in _joint.groups(block, f"transformer_blocks.{i}", False)]
    return joint + [group for unit in units(denoiser) for group in unit if group[0].startswith("single_")]


def sites(denoiser: Any) -> list[Site]:
    found = []
    for i, block in enumerate(denoiser.transformer_blocks):
        found += _joint.sites(block, f"transformer_blocks.{i}")
    for i, block in enumerate(denoiser.single_transformer_blocks):
        at = f"single_transformer_blocks.{i}"
        channels, neurons = block.attn.to_q.out_features, block.proj_mlp.out_features
        makers = tuple(Span(f"{at}.attn.{part}") for part in ("to_q", "to_k", "to_v"))
        heads = Stream(Span(f"{at}.proj_out"), makers)
        found.append(Site("heads", block.attn.heads, channels // block.attn.heads, (heads,), f"{at}.attn"))
        mlp = Stream(Span(f"{at}.proj_out", channels), (Span(f"{at}.proj_mlp"),))
        found.append(Site("neurons", neurons, 1, (mlp,)))
    return found


def example(denoiser: Any, height: int, width: int, sampling: Sampling) -> dict[str, Any]:
    """One call for one prompt on latents of height × width, packed 2×2; guidance is an input, not a second call."""
    config = denoiser.config
    make = {"device": denoiser.device, "dtype": denoiser.dtype}
    text = T5_TOKENS if sampling.max_sequence_length is None else sampling.max_sequence_length
    tokens = (height // 2) * (width // 2)
    return {
        "hidden_states": torch.empty(1, tokens, config.in_channels, **make),
        "encoder_hidden_states": torch.empty(1, text, config.joint_attention_dim, **make),
        "pooled_projections": torch.empty(1, config.pooled_projection_dim, **make),
        "timestep": torch.empty(1, **make),
        "img_ids": torch.empty(tokens, 3, **make),
        "txt_ids": torch.empty(text, 3, **make),
        "guidance": torch.empty(1, **make) if config.guidance_embeds else None,
    }


@torch.no_grad()
def encode(pipe: Any, prompts: Sequence[str], sampling: Sampling) -> dict[str, torch.Tensor]:
    tokens = sampling.max_sequence_length
    if tokens == 0:
        raise SpecError("max_sequence_length: 0 leaves Flux without a text; give a number in [1, 512]")
    length = {} if tokens is None else {"max_sequence_length": tokens}
    embeds, pooled, _ = pipe.encode_prompt(list(prompts), **length)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def tiny() -> Any:
    """2 joint and 2 single blocks of width 32, images of 32×32."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    clip = _tiny.clip_tokenizer()
    t5, letters = _tiny.t5(32)
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_tiny.flow_autoencoder(),
        text_encoder=CLIPTextModel(_tiny.clip_config(clip)),
        tokenizer=clip,
        text_encoder_2=t5,
        tokenizer_2=letters,
    )
