"""`zoo/emoji-unet`: a small Stable Diffusion (UNet, cross-attention, GEGLU) trained from nothing on the emoji world.

The UNet and its text encoder learn together to predict the noise (Ho et al. 2020), small noise levels counted less
(min-SNR, Hang et al. 2023); the autoencoder is emoji-sd3's, frozen.

    python -m zoo.recipe.emoji_unet [--steps N] [--batch N] [--device cuda]
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from zoo.recipe import data
from zoo.recipe.generators import Examples, save, text_config
from zoo.recipe.training import command, train

BATCH, STEPS = 64, 6000
TEXT_WIDTH = 96
NOISE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
FOLDER = data.ZOO / "emoji-unet"
KIND, OBJECTIVE, SAMPLER = "Stable Diffusion", "noise, min-SNR weighted", "DPM++ steps, guidance 3.0"
USAGE = """```python
pipe = DiffusionPipeline.from_pretrained("zoo/emoji-unet")
pipe("tiger", height=32, width=32, num_inference_steps=12, guidance_scale=3.0)
```
"""


def denoiser() -> UNet2DConditionModel:
    """Three levels of 16×16 to 4×4, transformer blocks with heads of 16 channels on the lower two."""
    return UNet2DConditionModel(
        sample_size=data.SIZE // 2,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 80, 112),
        layers_per_block=1,
        attention_head_dim=(2, 5, 7),
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
        use_linear_projection=True,
    )


class Generator(nn.Module):
    """The trained parts in one module: the noise in a noisy latent under a tokenised caption."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.unet: Any = denoiser()
        self.text = CLIPTextModel(text_config(TEXT_WIDTH, vocab))

    def forward(self, latents: Tensor, timestep: Tensor, ids: Tensor) -> Tensor:
        """(n, 4, 16, 16), (n,) int64 in [0, 1000), (n, LENGTH) → noise, (n, 4, 16, 16)."""
        return self.unet(latents, timestep, self.text(ids).last_hidden_state, return_dict=False)[0]


def pipeline(model: Generator, vae: AutoencoderKL, words: CLIPTokenizer) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text,
        tokenizer=words,
        unet=model.unet,
        scheduler=DPMSolverMultistepScheduler(**NOISE, steps_offset=1, timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def fit(steps: int, batch: int, device: str) -> None:
    torch.manual_seed(0)
    examples = Examples(device)
    model = Generator(len(examples.words)).to(device)
    model.compile()
    betas = torch.linspace(NOISE["beta_start"] ** 0.5, NOISE["beta_end"] ** 0.5, NOISE["num_train_timesteps"]) ** 2
    kept = torch.cumprod(1 - betas, dim=0).to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        latents, noise, ids = examples.batch(batch, step, 3, generator)
        timestep = torch.randint(0, len(kept), (batch,), generator=generator, device=device)
        signal = kept[timestep].view(-1, 1, 1, 1)
        found = model(signal.sqrt() * latents + (1 - signal).sqrt() * noise, timestep, ids)
        ratio = kept[timestep] / (1 - kept[timestep])
        weight = ratio.clamp(max=5.0) / ratio
        return (weight * ((found - noise) ** 2).mean(dim=(1, 2, 3))).mean()

    log = train("emoji-unet", model, loss, steps=steps, lr=1e-3, work=data.WORK, batch=batch, ema_decay=0.9995)
    save(pipeline(model, examples.vae, examples.words), log, FOLDER)
    print({k: v for k, v in log.items() if k != "curve"})


if __name__ == "__main__":
    command(fit, STEPS, BATCH, __doc__)
