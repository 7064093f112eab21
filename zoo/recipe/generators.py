"""What the generators' recipes share: text encoders, tokenised captions with dropout, and the folder they end in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTokenizer

from zoo.recipe import autoencoder, data, tokenizer
from zoo.recipe.training import indices

LENGTH, MERGES = 16, 1500


def text_config(width: int, vocab: int) -> CLIPTextConfig:
    """A CLIP text transformer of 3 layers."""
    return CLIPTextConfig(
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


class Examples:
    """Latents and tokenised captions of the emoji world on a device.

    Attributes:
        vae: the frozen autoencoder.
        words: the captions' tokenizer.
        latents: (n, 4, 16, 16) float32, standardised.
        ids, empty: (n, LENGTH) and (1, LENGTH) int64.
    """

    def __init__(self, device: str) -> None:
        world = data.load()
        self.device = device
        self.vae: AutoencoderKL = AutoencoderKL.from_pretrained(autoencoder.FOLDER).to(device).eval()
        self.words: CLIPTokenizer = tokenizer.build(world.captions, merges=MERGES, length=LENGTH)
        self.latents = autoencoder.encode(self.vae, world.pictures)
        self.ids, self.empty = self.tokenise(world.captions), self.tokenise([""])

    def tokenise(self, texts: list[str]) -> Tensor:
        made = self.words(texts, padding="max_length", truncation=True, return_tensors="pt")
        return made.input_ids.to(self.device)

    def batch(self, size: int, step: int, seed: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and noise (size, 4, 16, 16), ids (size, LENGTH); one caption in ten is empty, for guidance."""
        i = indices(len(self.latents), size, step, seed).to(self.device)
        dropped = torch.rand(size, 1, generator=generator, device=self.device) < 0.1
        ids = torch.where(dropped, self.empty, self.ids[i])
        return self.latents[i], torch.randn(self.latents[i].shape, generator=generator, device=self.device), ids


def save(pipe: Any, log: dict, folder: Path) -> None:
    """Write a folder in half precision, saying float32: transformers would else open the text encoders in float16.

    The record of the training goes with it, for the card.
    """
    pipe.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "training.json").write_text(json.dumps(log) + "\n")
