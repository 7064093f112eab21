"""`zoo/emoji-clip`: the evaluator, an open_clip model trained contrastively on images and captions.

It shares neither weights nor tokenizer with any generator. Images are shifted, scaled, blurred, recoloured and
overlaid with noise while training, so that imperfect generated images still find their caption.

    python -m zoo.recipe.emoji_clip [--steps N] [--batch N] [--device cuda]
"""

from __future__ import annotations

import json

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from zoo.recipe import data, tokenizer
from zoo.recipe.training import command, indices, train

BATCH, STEPS, LENGTH = 256, 2400, 20
FOLDER = data.ZOO / "emoji-clip"
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def config(vocab: int) -> dict:
    vision = {"image_size": data.SIZE, "patch_size": 8, "width": 128, "head_width": 32, "layers": 5}
    text = {"context_length": LENGTH, "vocab_size": vocab, "width": 96, "heads": 3, "layers": 3}
    return {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text | {"hf_tokenizer_name": "emoji-clip"}}


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """float32 (n, 3, h, w) in [−1, 1] → the same, shifted, scaled, blurred, recoloured, with noise."""
    n, device = len(x), x.device

    def u(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, device=device) - 1

    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = 1 + 0.1 * u(n), 1 + 0.1 * u(n)
    theta[:, 0, 1], theta[:, 1, 0] = 0.08 * u(n), 0.08 * u(n)
    theta[:, :, 2] = 0.12 * u(n, 2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x - 1, grid, align_corners=False) + 1
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.lerp(x, soft, torch.rand(n, 1, 1, 1, generator=generator, device=device))
    x = x * (1 + 0.15 * u(n, 1, 1, 1)) + 0.1 * u(n, 3, 1, 1)
    strength = 0.25 * torch.rand(n, 1, 1, 1, generator=generator, device=device) ** 2
    return x + strength * torch.randn(x.shape, generator=generator, device=device)


def contrastive(model: torch.nn.Module, x: Tensor, tokens: Tensor) -> Tensor:
    """Symmetric InfoNCE of a batch of matching images and captions (Radford et al. 2021)."""
    image, text, scale = model(x, tokens)
    logits = scale.clamp(max=50) * image @ text.T
    target = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def fit(steps: int, batch: int, device: str) -> None:
    torch.manual_seed(0)
    world = data.load()
    words = tokenizer.build(world.captions, merges=1500, length=LENGTH)
    cfg = config(len(words))
    pre = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": pre}, indent=2))
    words.save_pretrained(FOLDER)
    model = open_clip.CLIP(**cfg).to(device)
    ids = words(world.captions, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids.to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        i = indices(len(world.ids), batch, step, 1)
        x = augment(world.pictures[i].to(device).float() / 127.5 - 1, generator)
        return contrastive(model, x, ids[i.to(device)])

    log = train("emoji-clip", model, loss, steps=steps, lr=1e-3, work=data.WORK, batch=batch, weight_decay=0.05)
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, FOLDER / "open_clip_model.safetensors")
    print({k: v for k, v in log.items() if k != "curve"}, "parameters", sum(p.numel() for p in model.parameters()))


if __name__ == "__main__":
    command(fit, STEPS, BATCH, __doc__)
