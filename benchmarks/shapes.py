"""Pipelines of the paper's models at their true widths, with random weights: costs are real, images are not.

    python -m benchmarks.shapes --model sd3-medium --folder /tmp/sd3-medium

Denoisers are those of the configurations that ship with the project (obsdiff/facts). Text encoders have the widths that
the denoiser reads and two layers, the VAE has the latents' shape and few channels: neither is pruned, and the real ones
would only add a constant.
"""

from pathlib import Path
from typing import Any

import torch
import tyro
from torch import nn

from obsdiff import models
from obsdiff.models import _tiny
from obsdiff.pipelines.loading import configuration
from obsdiff.pipelines.sources import INDEX
from obsdiff.source import Source

HUB = {
    "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd35-large": "stabilityai/stable-diffusion-3.5-large",
    "flux1-dev": "black-forest-labs/FLUX.1-dev",
}
BUFFER = 1 << 24
"""random numbers that all weights are cut from; drawing billions would take longer than pruning"""


def denoiser_config(model: str, blocks: int | None) -> dict[str, Any]:
    """The configuration of a model's denoiser.

    Args:
        blocks: joint blocks that are kept, and as many pairs of single ones; all by default.
    """
    config = dict(configuration(Source(HUB[model]), "transformer/config.json"))
    for key, count in (("num_layers", blocks), ("num_single_layers", blocks and 2 * blocks)):
        if count is not None and key in config:
            config[key] = min(count, config[key])
    return config


@torch.no_grad()
def filled(network: nn.Module, device: str, seed: int = 0) -> nn.Module:
    """A network of the meta device with memory on `device`: matrices random with variance 1 / fan-in, biases zero."""
    draw = torch.Generator(device).manual_seed(seed)
    dtype = next(network.parameters()).dtype
    normal = torch.empty(BUFFER, device=device, dtype=dtype).normal_(generator=draw)
    network = network.to_empty(device=device)
    for name, tensor in network.state_dict().items():
        if tensor.dim() < 2:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        flat, start = tensor.view(-1), 0
        while start < flat.numel():
            shift = 0 if flat.numel() < BUFFER else int(torch.randint(BUFFER, (), generator=draw, device=device))
            piece = normal[shift : shift + flat.numel() - start]
            flat[start : start + len(piece)] = piece
            start += len(piece)
        tensor.mul_(tensor[0].numel() ** -0.5)
        normal = normal.roll(977)
    return network.eval()


def text_encoder(kind: str, config: dict[str, Any]) -> tuple[Any, Any]:
    """A text encoder of a configuration's width, and its tokenizer; both know letters alone."""
    import transformers

    if "d_model" in config:
        _, letters = _tiny.t5(16)
        small = {"vocab_size": len(letters), "d_ff": 64, "num_layers": 2}
        made = transformers.T5EncoderModel(transformers.T5Config(**(config | small)))
        return made.bfloat16().eval(), letters
    letters = _tiny.clip_tokenizer(config["max_position_embeddings"])
    tokens = {f"{t}_token_id": getattr(letters, f"{t}_token_id") for t in ("bos", "eos", "pad")}
    small = {"vocab_size": len(letters), "intermediate_size": 64, "num_hidden_layers": 2, **tokens}
    made = getattr(transformers, kind)(transformers.CLIPTextConfig(**(config | small)))
    return made.bfloat16().eval(), letters


def pipeline(model: str, blocks: int | None = None, device: str = "cpu") -> Any:
    """The pipeline in bfloat16, its denoiser on `device`; Stable Diffusion 3 without T5."""
    import diffusers

    source = Source(HUB[model])
    index = configuration(source, INDEX)
    family = models.family_of_index(index)
    config = denoiser_config(model, blocks)
    with torch.device("meta"):
        network = getattr(diffusers, family.TRAITS.network).from_config(config).to(torch.bfloat16)
    vae = configuration(source, "vae/config.json")
    small = {"block_out_channels": [8] * len(vae["block_out_channels"]), "norm_num_groups": 4, "layers_per_block": 1}
    small["shift_factor"] = 0.0  # the pipelines add it
    parts: dict[str, Any] = {
        family.TRAITS.denoiser: filled(network, device),
        "vae": diffusers.AutoencoderKL.from_config(vae | small).to(torch.bfloat16).eval(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=model == "flux1-dev"),
    }
    for name, entry in index.items():
        if name.startswith("text_encoder"):
            absent = family.TRAITS.pipeline == "StableDiffusion3Pipeline" and name == "text_encoder_3"
            made = (None, None) if absent else text_encoder(entry[1], configuration(source, f"{name}/config.json"))
            parts[name], parts[name.replace("text_encoder", "tokenizer")] = made
    return getattr(diffusers, family.TRAITS.pipeline)(**parts)


def main(model: str = "sd3-medium", folder: Path = Path("real-size"), blocks: int | None = None) -> None:
    """Write a diffusers folder.

    Args:
        model: sd3-medium, sd35-large or flux1-dev.
        blocks: of the denoiser; all by default.
    """
    pipeline(model, blocks).save_pretrained(folder, max_shard_size="100GB")


if __name__ == "__main__":
    tyro.cli(main)
