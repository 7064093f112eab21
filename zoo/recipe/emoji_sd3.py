"""`zoo/emoji-sd3`: a small Stable Diffusion 3 trained from nothing by flow matching on the emoji world.

The transformer and both text encoders learn together; the autoencoder (zoo.recipe.autoencoder) is frozen. Captions
are dropped for one image in ten, so that classifier-free guidance works.

    python -m zoo.recipe.emoji_sd3 [--steps N] [--batch N] [--device cuda]
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from zoo.recipe import data
from zoo.recipe.generators import Examples, save, text_config
from zoo.recipe.training import command, train

BATCH, STEPS = 64, 8400
BLOCKS, HEADS, HEAD_SIZE = 6, 5, 32
TEXT_WIDTHS = (64, 96)
FOLDER = data.ZOO / "emoji-sd3"
KIND, OBJECTIVE, SAMPLER = "Stable Diffusion 3", "flow matching", "Euler steps, guidance 3.0"
USAGE = """```python
pipe = DiffusionPipeline.from_pretrained("zoo/emoji-sd3", text_encoder_3=None, tokenizer_3=None)  # it has no T5
pipe("tiger", height=32, width=32, num_inference_steps=12, guidance_scale=3.0, max_sequence_length=0)
```

It was trained without T5 tokens, hence `max_sequence_length=0`: diffusers would append 256 empty ones.
"""


def denoiser() -> SD3Transformer2DModel:
    """6 joint-attention blocks of width 160 on 4×4 patches: 16 image tokens beside 16 text tokens."""
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
        self.transformer: Any = denoiser()
        self.text = nn.ModuleList(CLIPTextModelWithProjection(text_config(width, vocab)) for width in TEXT_WIDTHS)

    def forward(self, latents: Tensor, sigma: Tensor, ids: Tensor) -> Tensor:
        """(n, 4, 16, 16), (n,) in (0, 1), (n, 16) → velocity noise − image, (n, 4, 16, 16)."""
        outs = [encoder(ids, output_hidden_states=True) for encoder in self.text]
        prompt = torch.cat([out.hidden_states[-2] for out in outs], dim=-1)
        pooled = torch.cat([out.text_embeds for out in outs], dim=-1)
        return self.transformer(latents, prompt, pooled, 1000 * sigma, return_dict=False)[0]


def pipeline(model: Generator, vae: AutoencoderKL, words: CLIPTokenizer) -> StableDiffusion3Pipeline:
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


def fit(steps: int, batch: int, device: str) -> None:
    torch.manual_seed(0)
    examples = Examples(device)
    model = Generator(len(examples.words)).to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        latents, noise, ids = examples.batch(batch, step, 2, generator)
        sigma = torch.sigmoid(1.2 * torch.randn(batch, generator=generator, device=device) + 0.2)
        mix = sigma.view(-1, 1, 1, 1)
        velocity = model((1 - mix) * latents + mix * noise, sigma, ids)
        return ((velocity - (noise - latents)) ** 2).mean()

    log = train("emoji-sd3", model, loss, steps=steps, lr=1e-3, work=data.WORK, batch=batch, ema_decay=0.9995)
    save(pipeline(model, examples.vae, examples.words), log, FOLDER)
    print({k: v for k, v in log.items() if k != "curve"})


if __name__ == "__main__":
    command(fit, STEPS, BATCH, __doc__)
