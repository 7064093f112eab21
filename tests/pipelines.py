"""Tiny pipelines of diffusers that have no file in obsdiff/models, of their real classes, randomly initialised."""

import warnings
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

from obsdiff.models import _tiny

LETTERS = {c: i for i, c in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", *"▁Ġabcdefghijklmnopqrstuvwxyz,.:<>|_\\n"])}

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
"""of language models that encode prompts"""


def aura_flow() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    _, letters = _tiny.t5(32)
    config = UMT5Config(vocab_size=len(letters), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2)
    return AuraFlowPipeline(
        tokenizer=letters,
        text_encoder=UMT5EncoderModel(config).eval(),
        vae=_tiny.autoencoder(),
        transformer=AuraFlowTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            out_channels=4,
            pos_embed_max_size=256,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def chroma() -> Any:
    t5, letters = _tiny.t5(32)
    return ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
            approximator_hidden_dim=32,
            approximator_layers=1,
            approximator_num_channels=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_tiny.flow_autoencoder(),
        text_encoder=t5,
        tokenizer=letters,
    )


def lumina2() -> Any:
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    letters = GemmaTokenizer(vocab=LETTERS, merges=[])
    config = Gemma2Config(vocab_size=len(letters), head_dim=16, **TEXT)
    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=16,
            in_channels=4,
            hidden_size=32,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            scaling_factor=1.0,
            axes_dim_rope=(4, 6, 6),
            axes_lens=(300, 64, 64),
            cap_feat_dim=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_tiny.flow_autoencoder(),
        text_encoder=Gemma2Model(config),
        tokenizer=letters,
    )


def qwen_image() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    letters = Qwen2Tokenizer(vocab=LETTERS, merges=[])
    rope = {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}
    text = TEXT | {"vocab_size": len(letters), "bos_token_id": 2, "eos_token_id": 1, "rope_scaling": rope}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False]),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=letters,
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
        ),
    )


MAKE = {"AuraFlow": aura_flow, "Chroma": chroma, "Lumina2": lumina2, "QwenImage": qwen_image}


def made(name: str) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Chroma's own import of a class that moved
        pipe = MAKE[name]()
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipe
