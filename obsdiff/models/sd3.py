"""Stable Diffusion 3 and 3.5: `SD3Transformer2DModel`, joint attention of an image and a text stream."""

from collections.abc import Sequence
from typing import Any

import torch

from obsdiff.models import Traits, _joint, _tiny
from obsdiff.packages import Group, Unit
from obsdiff.sampling import Sampling
from obsdiff.sites import Site

TRAITS = Traits(
    pipeline="StableDiffusion3Pipeline",
    denoiser="transformer",
    network="SD3Transformer2DModel",
    schedulers=("dpm++", "euler", "heun"),
    sides=("latents", "patch_size"),
    last="proj_out",
)


def blocks(denoiser: Any) -> list[str]:
    return [f"transformer_blocks.{i}" for i in range(len(denoiser.transformer_blocks))]


def units(denoiser: Any) -> list[Unit]:
    return [unit for at in blocks(denoiser) for unit in _joint.units(denoiser.get_submodule(at), at)]


def groups(denoiser: Any) -> list[Group]:
    return [group for at in blocks(denoiser) for group in _joint.groups(denoiser.get_submodule(at), at, True)]


def sites(denoiser: Any) -> list[Site]:
    return [site for at in blocks(denoiser) for site in _joint.sites(denoiser.get_submodule(at), at)]


CLIP_TOKENS, T5_TOKENS = 77, 256


def example(denoiser: Any, height: int, width: int, sampling: Sampling) -> dict[str, Any]:
    """One call for one prompt on latents of height × width, its tensors without content."""
    config = denoiser.config
    make = {"device": denoiser.device, "dtype": denoiser.dtype}
    batch = 2 if sampling.guidance_scale > 1 else 1
    t5 = T5_TOKENS if sampling.max_sequence_length is None else sampling.max_sequence_length
    return {
        "hidden_states": torch.empty(batch, config.in_channels, height, width, **make),
        "encoder_hidden_states": torch.empty(batch, CLIP_TOKENS + t5, config.joint_attention_dim, **make),
        "pooled_projections": torch.empty(batch, config.pooled_projection_dim, **make),
        "timestep": torch.empty(batch, **make),
    }


@torch.no_grad()
def encode(pipe: Any, prompts: Sequence[str], sampling: Sampling) -> dict[str, torch.Tensor]:
    guided = sampling.guidance_scale > 1
    length = {} if sampling.max_sequence_length is None else {"max_sequence_length": sampling.max_sequence_length}
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeds = pipe.encode_prompt(
        list(prompts), list(prompts), list(prompts), do_classifier_free_guidance=guided, **length
    )
    return {name: tensor for name, tensor in zip(names, embeds, strict=True) if tensor is not None}


def tiny() -> Any:
    """2 blocks of width 32 (the second with attn2), images of 32×32, 16 text tokens without T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer = _tiny.clip_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=4,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=32,
            pos_embed_max_size=4,
            dual_attention_layers=(1,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_tiny.flow_autoencoder(),
        text_encoder=CLIPTextModelWithProjection(_tiny.clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_tiny.clip_config(tokenizer)),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
