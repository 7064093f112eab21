"""Parts of the families' tiny pipelines, randomly initialised and offline."""

from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz,"
LENGTH = 16


def clip_tokenizer(length: int = LENGTH) -> Any:
    from transformers import CLIPTokenizer

    vocab = {token: i for i, token in enumerate([*LETTERS, *(f"{c}</w>" for c in LETTERS)])}
    vocab |= {token: len(vocab) + i for i, token in enumerate(("<|startoftext|>", "<|endoftext|>"))}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def clip_config(tokenizer: Any, width: int = 16) -> Any:
    """Of a CLIP text encoder of that width (and projection)."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5(width: int) -> tuple[Any, Any]:
    """A T5 encoder of that width, and its tokenizer of single letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]
    tokenizer = T5Tokenizer(vocab=[(piece, 0.0) for piece in pieces], extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    encoder: Any = T5EncoderModel(config)
    return encoder.eval(), tokenizer  # it has dropout


def autoencoder(**more: Any) -> Any:
    """Images of 32×32, latents of 16×16 and 4 channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        **more,
    )


def flow_autoencoder() -> Any:
    """As SD 3 and Flux have it: latents shifted and scaled, without quantisation layers."""
    return autoencoder(shift_factor=0.0, scaling_factor=1.0, use_quant_conv=False, use_post_quant_conv=False)


UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": (2, 2),
    "norm_num_groups": 8,
    "use_linear_projection": True,
}
NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
