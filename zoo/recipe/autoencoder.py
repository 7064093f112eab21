"""`AutoencoderKL` of the generators: 32×32 images ↔ 16×16 latents of 4 channels, standardised by its config.

python -m zoo.recipe.autoencoder [--steps N] [--batch N] [--device cuda]
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from zoo.recipe import data
from zoo.recipe.training import command, indices, train

BATCH, STEPS = 32, 1500
FOLDER = data.WORK / "vae"


def build() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=data.SIZE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def scaled(pictures: Tensor) -> Tensor:
    """uint8 (n, 3, h, w) → float32 in [−1, 1]."""
    return pictures.float() / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of float32 (n, 3, h, w) images in [−1, 1]."""
    mse = ((a - b).clamp(-2, 2) ** 2).mean(dim=(1, 2, 3)) / 4
    return float((-10 * mse.log10()).mean())


@torch.no_grad()
def encode(vae: Any, pictures: Tensor, batch: int = 256) -> Tensor:
    """uint8 (n, 3, 32, 32) → standardised float32 latents (n, 4, 16, 16) on the autoencoder's device."""
    means = [vae.encode(scaled(p).to(vae.device)).latent_dist.mean for p in pictures.split(batch)]
    return (torch.cat(means) - vae.config.shift_factor) * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: Any, latents: Tensor, batch: int = 256) -> Tensor:
    raw = latents / vae.config.scaling_factor + vae.config.shift_factor
    return torch.cat([vae.decode(z).sample.clamp(-1, 1) for z in raw.split(batch)])


def fit(steps: int, batch: int, device: str) -> None:
    torch.manual_seed(0)
    pictures = data.load().pictures
    vae: Any = build()
    vae.to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        x = scaled(pictures[indices(len(pictures), batch, step, 0)]).to(device)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample(generator)).sample
        edges = sum((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs().mean() for d in (2, 3))
        return (y - x).abs().mean() + 2 * ((y - x) ** 2).mean() + 0.5 * edges + 1e-6 * posterior.kl().mean()

    log = train("vae", vae, loss, steps=steps, lr=1.5e-3, work=data.WORK, batch=batch, ema_decay=0.995)
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    latents = encode(vae, pictures)
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))
    fidelity = psnr(decode(vae, encode(vae, pictures)).cpu(), scaled(pictures))
    vae.save_pretrained(FOLDER)
    print({k: v for k, v in log.items() if k != "curve"}, f"{fidelity:.1f} dB, {math.prod(latents.shape[1:])} numbers")


if __name__ == "__main__":
    command(fit, STEPS, BATCH, __doc__)
