"""Stable Diffusion XL: `UNet2DConditionModel` with two text encoders and the image's size as conditions."""

from collections.abc import Sequence
from typing import Any

import torch

from obsdiff.models import Traits, _tiny, _unet, sd
from obsdiff.sampling import Sampling

TRAITS = Traits(
    pipeline="StableDiffusionXLPipeline",
    denoiser="unet",
    network="UNet2DConditionModel",
    schedulers=("ddim", "dpm++", "edm", "euler", "heun", "pndm"),
    sides=("pixels", 8),
    convolutions=True,
)
SIZES = 6
"""numbers that tell original size, crop and target size"""

blocks, units, groups, sites = _unet.blocks, _unet.units, _unet.groups, _unet.sites


def example(denoiser: Any, height: int, width: int, sampling: Sampling) -> dict[str, Any]:
    """One call for one prompt on latents of height × width."""
    arguments, config = sd.example(denoiser, height, width, sampling), denoiser.config
    make = {"device": denoiser.device, "dtype": denoiser.dtype}
    batch = len(arguments["sample"])
    pooled = config.projection_class_embeddings_input_dim - SIZES * config.addition_time_embed_dim
    conditions = {"text_embeds": torch.empty(batch, pooled, **make), "time_ids": torch.empty(batch, SIZES, **make)}
    return arguments | {"added_cond_kwargs": conditions}


@torch.no_grad()
def encode(pipe: Any, prompts: Sequence[str], sampling: Sampling) -> dict[str, torch.Tensor]:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeds = pipe.encode_prompt(list(prompts), do_classifier_free_guidance=sampling.guidance_scale > 1)
    return {name: tensor for name, tensor in zip(names, embeds, strict=True) if tensor is not None}


def tiny() -> Any:
    """A UNet of two levels, the lower one with attention, of widths 16 and 32; images of 32×32."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer = _tiny.clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=_tiny.autoencoder(),
        text_encoder=CLIPTextModel(_tiny.clip_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_tiny.clip_config(tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=UNet2DConditionModel(
            **_tiny.UNET,
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 8 * SIZES,
        ),
        scheduler=EulerDiscreteScheduler(**_tiny.NOISE),
    )
