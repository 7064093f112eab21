"""`zoo/emoji-sd3`: a small Stable Diffusion 3 trained from nothing by flow matching on the emoji world.

The transformer and both text encoders learn together; the autoencoder (zoo.recipe.autoencoder) is frozen. Captions
are dropped for one picture in ten, so that classifier-free guidance works.

    python -m zoo.recipe.emoji_sd3 [--steps N] [--device cuda]
"""

from __future__ import annotations

import json

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from zoo.recipe import autoencoder, data, tokenizer
from zoo.recipe.training import command, indices, train

BATCH, STEPS, LENGTH = 64, 8400, 16
BLOCKS, HEADS, HEAD_SIZE = 6, 5, 32
TEXT_WIDTHS = (64, 96)
FOLDER = data.ZOO / "emoji-sd3"


def text_encoder(width: int, vocab: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocab,
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=width // 32,
            max_position_embeddings=LENGTH,
            bos_token_id=vocab - 2,
            eos_token_id=vocab - 1,
            pad_token_id=vocab - 1,
        )
    )


def transformer() -> SD3Transformer2DModel:
    """6 joint-attention blocks of width 160 on 4×4 patches: 16 picture tokens beside 16 text tokens."""
    width = HEADS * HEAD_SIZE
    return SD3Transformer2DModel(
        sample_size=data.SIZE // 2,
        patch_size=4,
        in_channels=4,
        out_channels=4,
        num_layers=BLOCKS,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_SIZE,
        joint_attention_dim=sum(TEXT_WIDTHS),
        caption_projection_dim=width,
        pooled_projection_dim=sum(TEXT_WIDTHS),
        pos_embed_max_size=data.SIZE // 8,
        qk_norm="rms_norm",
    )


class Generator(nn.Module):
    """The trained parts in one module: velocity of a noisy latent under a tokenised caption."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.transformer = transformer()
        self.text = nn.ModuleList(text_encoder(width, vocab) for width in TEXT_WIDTHS)

    def forward(self, latents: Tensor, sigma: Tensor, ids: Tensor) -> Tensor:
        """(n, 4, 16, 16), (n,) in (0, 1), (n, LENGTH) → velocity noise − picture, (n, 4, 16, 16)."""
        outs = [encoder(ids, output_hidden_states=True) for encoder in self.text]
        prompt = torch.cat([out.hidden_states[-2] for out in outs], dim=-1)
        pooled = torch.cat([out.text_embeds for out in outs], dim=-1)
        return self.transformer(latents, prompt, pooled, 1000 * sigma, return_dict=False)[0]


def pipeline(model: Generator, vae: AutoencoderKL, captions: list[str]) -> StableDiffusion3Pipeline:
    words = tokenizer.build(captions, merges=1500, length=LENGTH)
    return StableDiffusion3Pipeline(
        transformer=model.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=model.text[0],
        tokenizer=words,
        text_encoder_2=model.text[1],
        tokenizer_2=words,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def save(pipe: StableDiffusion3Pipeline) -> None:
    """Write FOLDER in half precision, saying float32: transformers would else open the text encoders in float16."""
    pipe.to(dtype=torch.float16).save_pretrained(FOLDER, safe_serialization=True)
    for path in FOLDER.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2) + "\n")


def fit(steps: int, device: str) -> None:
    torch.manual_seed(0)
    world = data.load()
    vae = AutoencoderKL.from_pretrained(autoencoder.FOLDER).to(device).eval()
    latents = autoencoder.encode(vae, world.pictures)
    words = tokenizer.build(world.captions, merges=1500, length=LENGTH)

    def tokenise(texts: list[str]) -> Tensor:
        return words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)

    ids, empty = tokenise(world.captions), tokenise([""])
    model = Generator(len(words)).to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        i = indices(len(latents), BATCH, step, 2).to(device)
        dropped = torch.rand(BATCH, 1, generator=generator, device=device) < 0.1
        text = torch.where(dropped, empty, ids[i])
        noise = torch.randn(latents[i].shape, generator=generator, device=device)
        sigma = torch.sigmoid(1.2 * torch.randn(BATCH, generator=generator, device=device) + 0.2)
        mix = sigma.view(-1, 1, 1, 1)
        velocity = model((1 - mix) * latents[i] + mix * noise, sigma, text)
        return ((velocity - (noise - latents[i])) ** 2).mean()

    log = train("emoji-sd3", model, loss, steps=steps, lr=1e-3, work=data.WORK, batch=BATCH, ema_decay=0.9995)
    save(pipeline(model, vae, world.captions))
    print({k: v for k, v in log.items() if k != "curve"})


if __name__ == "__main__":
    command(fit, STEPS, __doc__)
