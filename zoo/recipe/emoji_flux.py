"""`zoo/emoji-flux`: a small Flux (joint and single blocks, CLIP and T5) trained from nothing on the emoji world.

The transformer and both text encoders learn together by flow matching; the autoencoder is emoji-sd3's, frozen. It has
no guidance embedding and is drawn from without guidance: FluxPipeline guides distilled models alone.

    python -m zoo.recipe.emoji_flux [--steps N] [--batch N] [--device cuda]
"""

from __future__ import annotations

import json
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from zoo.recipe import data
from zoo.recipe.generators import LENGTH, Examples, save, text_config
from zoo.recipe.training import command, indices, train

BATCH, STEPS = 64, 4500
HEADS, HEAD_SIZE, JOINT, SINGLE = 4, 32, 3, 6
CLIP_WIDTH, T5_WIDTH, PIECES = 64, 96, 1000
SIDE = data.SIZE // 4
"""of the latents packed 2×2"""
FOLDER = data.ZOO / "emoji-flux"
KIND, OBJECTIVE, SAMPLER = "Flux", "flow matching", "Euler steps, no guidance"
USAGE = f"""```python
pipe = DiffusionPipeline.from_pretrained("zoo/emoji-flux")
pipe("tiger", height=32, width=32, num_inference_steps=12, max_sequence_length={LENGTH})
```

It was trained on {LENGTH} T5 tokens; diffusers would pad to 512.
"""


def t5_tokenizer(captions: list[str]) -> T5Tokenizer:
    """Unigram pieces learnt from the captions."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    raw.train_from_iterator(
        captions, trainers.UnigramTrainer(vocab_size=PIECES, special_tokens=special, unk_token="<unk>")
    )
    vocab = [(piece, score) for piece, score in json.loads(raw.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=LENGTH)


def denoiser() -> FluxTransformer2DModel:
    """3 joint and 6 single blocks of width 128 on 64 image tokens beside 16 text tokens."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=JOINT,
        num_single_layers=SINGLE,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


class Generator(nn.Module):
    """The trained parts in one module: velocity of a noisy packed latent under a caption tokenised twice."""

    def __init__(self, clip_vocab: int, t5_vocab: int) -> None:
        super().__init__()
        self.transformer: Any = denoiser()
        self.clip = CLIPTextModel(text_config(CLIP_WIDTH, clip_vocab))
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=t5_vocab,
                d_model=T5_WIDTH,
                d_kv=32,
                d_ff=2 * T5_WIDTH,
                num_layers=3,
                num_heads=3,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )
        rows = torch.arange(SIDE)
        ids = torch.stack([torch.zeros(SIDE, SIDE), *torch.meshgrid(rows, rows, indexing="ij")], dim=-1)
        self.register_buffer("picture_ids", ids.view(-1, 3).float(), persistent=False)
        self.register_buffer("text_ids", torch.zeros(LENGTH, 3), persistent=False)

    def forward(self, packed: Tensor, sigma: Tensor, clip_ids: Tensor, t5_ids: Tensor) -> Tensor:
        """(n, 64, 16), (n,) in (0, 1), (n, LENGTH) twice → velocity noise − image, (n, 64, 16)."""
        return self.transformer(
            hidden_states=packed,
            encoder_hidden_states=self.t5(t5_ids).last_hidden_state,
            pooled_projections=self.clip(clip_ids).pooler_output,
            timestep=sigma,
            img_ids=self.picture_ids,
            txt_ids=self.text_ids,
            return_dict=False,
        )[0]


def pipeline(model: Generator, vae: AutoencoderKL, words: CLIPTokenizer, pieces: T5Tokenizer) -> FluxPipeline:
    return FluxPipeline(
        transformer=model.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=model.clip,
        tokenizer=words,
        text_encoder_2=model.t5,
        tokenizer_2=pieces,
    )


def packed(latents: Tensor) -> Tensor:
    """(n, 4, 16, 16) → (n, 64, 16), as FluxPipeline packs them."""
    return latents.unflatten(2, (SIDE, 2)).unflatten(4, (SIDE, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def fit(steps: int, batch: int, device: str) -> None:
    torch.manual_seed(0)
    examples, captions = Examples(device), data.load().captions
    pieces = t5_tokenizer(captions)
    made = pieces(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    t5_ids = made.input_ids.to(device)
    model = Generator(len(examples.words), len(pieces)).to(device)
    model.compile()  # a third more images a second on a CPU

    def loss(step: int, generator: torch.Generator) -> Tensor:
        i = indices(len(examples.latents), batch, step, 4).to(device)
        latents = packed(examples.latents[i])
        noise = torch.randn(latents.shape, generator=generator, device=device)
        sigma = torch.sigmoid(1.2 * torch.randn(batch, generator=generator, device=device) + 0.2)
        mix = sigma.view(-1, 1, 1)
        velocity = model((1 - mix) * latents + mix * noise, sigma, examples.ids[i], t5_ids[i])
        return ((velocity - (noise - latents)) ** 2).mean()

    log = train("emoji-flux", model, loss, steps=steps, lr=1e-3, work=data.WORK, batch=batch, ema_decay=0.9995)
    save(pipeline(model, examples.vae, examples.words, pieces), log, FOLDER)
    print({k: v for k, v in log.items() if k != "curve"})


if __name__ == "__main__":
    command(fit, STEPS, BATCH, __doc__)
