"""Tiny pipelines of diffusers that have no file in obsdiff/models, of their real classes, randomly initialised."""

import warnings
from dataclasses import replace
from typing import Any

import torch
from conftest import SAMPLING
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from obsdiff.models import _tiny

SMALL = replace(SAMPLING, max_sequence_length=None)

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


def chatting() -> Any:
    """A tokenizer of single letters with a chat template."""
    from transformers import Qwen2Tokenizer

    letters = Qwen2Tokenizer(vocab=LETTERS, merges=[])
    letters.chat_template = "{{ messages[0]['content'] }}"
    return letters


def z_image() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    letters = chatting()
    config = Qwen3Config(vocab_size=len(letters), head_dim=16, max_position_embeddings=512, **TEXT)
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=48,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=3,
        n_kv_heads=3,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=32,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.zeros_(token)  # diffusers leaves them as memory had them
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_tiny.flow_autoencoder(),
        text_encoder=Qwen3Model(config),
        tokenizer=letters,
        transformer=transformer,
    )


def flux2_klein() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    letters = chatting()
    text = TEXT | {"num_hidden_layers": 27}  # the pipeline reads the outputs of layers 9, 18 and 27
    config = Qwen3Config(vocab_size=len(letters), head_dim=16, max_position_embeddings=512, **text)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLFlux2(
            sample_size=32,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            latent_channels=1,
            norm_num_groups=4,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=Qwen3ForCausalLM(config),
        tokenizer=letters,
        transformer=Flux2Transformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=96,
            timestep_guidance_channels=32,
            axes_dims_rope=[4, 4, 4, 4],
            guidance_embeds=False,
        ),
    )


def cog_view4() -> Any:
    from transformers import GlmConfig, GlmForCausalLM

    _, letters = _tiny.t5(32)  # GLM's own adds special tokens to every text, as this one does
    config = GlmConfig(vocab_size=len(letters), head_dim=16, pad_token_id=0, eos_token_id=1, **TEXT)
    return CogView4Pipeline(
        tokenizer=letters,
        text_encoder=GlmForCausalLM(config),
        vae=_tiny.flow_autoencoder(),
        transformer=CogView4Transformer2DModel(
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            out_channels=4,
            text_embed_dim=32,
            time_embed_dim=8,
            condition_dim=4,
            rope_axes_dim=(16, 16),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def sana() -> Any:
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    letters = GemmaTokenizer(vocab=LETTERS, merges=[])
    config = Gemma2Config(vocab_size=len(letters), head_dim=16, **TEXT)
    blocks = ("ResBlock", "EfficientViTBlock")
    return SanaPipeline(
        tokenizer=letters,
        text_encoder=Gemma2Model(config),
        vae=AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
        ),
        transformer=SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=32,
            sample_size=16,
        ),
        scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
    )


def pixart_sigma() -> Any:
    t5, letters = _tiny.t5(32)
    return PixArtSigmaPipeline(
        tokenizer=letters,
        text_encoder=t5,
        vae=_tiny.autoencoder(),
        transformer=PixArtTransformer2DModel(
            sample_size=16,
            num_layers=2,
            patch_size=2,
            attention_head_dim=16,
            num_attention_heads=2,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=32,
            out_channels=8,
        ),
        scheduler=DPMSolverMultistepScheduler(),
    )


def hunyuan_dit() -> Any:
    from transformers import BertConfig, BertModel, BertTokenizer

    words = BertTokenizer(vocab={c: i for i, c in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS])})
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    t5, letters = _tiny.t5(32)
    return HunyuanDiTPipeline(
        vae=AutoencoderKL(  # the pipeline takes it for granted that a latent stands for 8 × 8 pixels
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
        ),
        text_encoder=BertModel(config),
        tokenizer=words,
        transformer=HunyuanDiT2DModel(
            sample_size=16,
            num_layers=4,
            patch_size=2,
            attention_head_dim=16,
            num_attention_heads=2,
            in_channels=4,
            cross_attention_dim=32,
            cross_attention_dim_t5=32,
            pooled_projection_dim=16,
            hidden_size=32,
            activation_fn="gelu-approximate",
        ),
        scheduler=DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5,
        tokenizer_2=letters,
    )


MAKE = {
    "AuraFlow": aura_flow,
    "Chroma": chroma,
    "CogView4": cog_view4,
    "Flux2Klein": flux2_klein,
    "HunyuanDiT": hunyuan_dit,
    "Lumina2": lumina2,
    "PixArtSigma": pixart_sigma,
    "QwenImage": qwen_image,
    "Sana": sana,
    "ZImage": z_image,
}


def made(name: str) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Chroma's own import of a class that moved
        pipe = MAKE[name]()
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipe
