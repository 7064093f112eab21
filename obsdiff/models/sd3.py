"""Stable Diffusion 3 and 3.5: `SD3Transformer2DModel`, joint attention of a picture and a text stream."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from obsdiff.packages import Unit
from obsdiff.spec import Sampling
from obsdiff.surgery import Site, Span, Stream

PIPELINE = "StableDiffusion3Pipeline"
DENOISER = "transformer"
SCHEDULERS = ("dpm++", "euler", "heun")

# one line a unit, one tuple a group of layers with the same input; what a block lacks is left out
_BLOCK = (
    (("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    (("attn.to_out.0",), ("attn.to_add_out",)),
    (("attn2.to_q", "attn2.to_k", "attn2.to_v"),),
    (("attn2.to_out.0",),),
    (("ff.net.0.proj",), ("ff_context.net.0.proj",)),
    (("ff.net.2",), ("ff_context.net.2",)),
)


def units(denoiser: Any) -> list[Unit]:
    present = {name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    found: list[Unit] = []
    for i in range(denoiser.config.num_layers):
        for unit in _BLOCK:
            named = (tuple(f"transformer_blocks.{i}.{layer}" for layer in group) for group in unit)
            groups = tuple(kept for g in named if (kept := tuple(name for name in g if name in present)))
            if groups:
                found.append(groups)
    return found


def sites(denoiser: Any) -> list[Site]:
    """Heads of attn and attn2, neurons of ff and ff_context, in order of execution.

    The last block's text stream has no output projection: its queries, keys and values go with the picture's.
    """
    found = []
    for i, block in enumerate(denoiser.transformer_blocks):
        at = f"transformer_blocks.{i}"
        for name in ("attn", "attn2"):
            attention = getattr(block, name, None)
            if attention is None:
                continue
            own = tuple(Span(f"{at}.{name}.{p}") for p in ("to_q", "to_k", "to_v"))
            text = tuple(
                Span(f"{at}.{name}.{p}")
                for p in ("add_q_proj", "add_k_proj", "add_v_proj")
                if getattr(attention, p, None) is not None
            )
            to_text = getattr(attention, "to_add_out", None)
            streams = [Stream(Span(f"{at}.{name}.to_out.0"), own if to_text is not None else own + text)]
            if to_text is not None:
                streams.append(Stream(Span(f"{at}.{name}.to_add_out"), text))
            size = attention.to_out[0].in_features // attention.heads
            found.append(Site("heads", attention.heads, size, tuple(streams), f"{at}.{name}"))
        for name in ("ff", "ff_context"):
            if (forward := getattr(block, name, None)) is not None:
                stream = Stream(Span(f"{at}.{name}.net.2"), (Span(f"{at}.{name}.net.0.proj"),))
                found.append(Site("neurons", forward.net[2].in_features, 1, (stream,)))
    return found


def example(denoiser: Any, height: int, width: int, tokens: int, batch: int) -> dict[str, Any]:
    """Arguments of one call: latents of height × width, `tokens` of text; empty tensors where the denoiser is meta."""
    config = denoiser.config
    make = {"device": denoiser.device, "dtype": denoiser.dtype}
    return {
        "hidden_states": torch.empty(batch, config.in_channels, height, width, **make),
        "encoder_hidden_states": torch.empty(batch, tokens, config.joint_attention_dim, **make),
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
    """2 blocks of width 32 (the second with attn2), pictures of 32×32, 16 text tokens without T5."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    alphabet = [*"abcdefghijklmnopqrstuvwxyz,", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz,")]
    vocab = {token: i for i, token in enumerate([*alphabet, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16)
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(vocab) - 2,
        eos_token_id=len(vocab) - 1,
        pad_token_id=len(vocab) - 1,
    )
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
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=32,
            shift_factor=0.0,
            scaling_factor=1.0,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
