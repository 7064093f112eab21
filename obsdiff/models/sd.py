"""Stable Diffusion 1 and 2: `UNet2DConditionModel` with one CLIP text encoder."""

from collections.abc import Sequence
from typing import Any

import torch

from obsdiff.models import Traits, _tiny, _unet
from obsdiff.sampling import Sampling

TRAITS = Traits(
    pipeline="StableDiffusionPipeline",
    denoiser="unet",
    network="UNet2DConditionModel",
    schedulers=("ddim", "dpm++", "edm", "euler", "heun", "pndm"),
    sides=("pixels", 8),
    convolutions=True,
)
CLIP_TOKENS = 77

blocks, units, groups, sites = _unet.blocks, _unet.units, _unet.groups, _unet.sites


def example(denoiser: Any, height: int, width: int, sampling: Sampling) -> dict[str, Any]:
    """One call for one prompt on latents of height × width."""
    config = denoiser.config
    make = {"device": denoiser.device, "dtype": denoiser.dtype}
    batch = 2 if sampling.guidance_scale > 1 else 1
    return {
        "sample": torch.empty(batch, config.in_channels, height, width, **make),
        "timestep": torch.empty(batch, **make),
        "encoder_hidden_states": torch.empty(batch, CLIP_TOKENS, config.cross_attention_dim, **make),
    }


@torch.no_grad()
def encode(pipe: Any, prompts: Sequence[str], sampling: Sampling) -> dict[str, torch.Tensor]:
    names = ("prompt_embeds", "negative_prompt_embeds")
    embeds = pipe.encode_prompt(list(prompts), pipe._execution_device, 1, sampling.guidance_scale > 1)
    return {name: tensor for name, tensor in zip(names, embeds, strict=True) if tensor is not None}


def tiny() -> Any:
    """A UNet of two levels, the lower one with attention, of widths 16 and 32; images of 32×32."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    tokenizer = _tiny.clip_tokenizer()
    return StableDiffusionPipeline(
        vae=_tiny.autoencoder(),
        text_encoder=CLIPTextModel(_tiny.clip_config(tokenizer)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**_tiny.UNET, cross_attention_dim=16),
        scheduler=PNDMScheduler(**_tiny.NOISE, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
