"""Measured speed-up of a denoiser that lost heads and neurons, against theoretical: FLOPs as torch counts them.

    python benchmarks/structured.py --out benchmarks/structured.md

A randomly initialised `SD3Transformer2DModel` large enough for its matrix products to count (the zoo's models are
bound by overhead). Dense and pruned calls take turns in one process, so that a machine whose speed drifts does not
pass for a speed-up.
"""

import copy
import platform
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import tyro
from diffusers import SD3Transformer2DModel
from torch.utils.flop_counter import FlopCounterMode

from eval.profile import clocked
from obsdiff import PruneSpec, Sampling, prune
from obsdiff.models import sd3

HEADS, HEAD_SIZE, BLOCKS, LATENT = 12, 64, 6, 32


def denoiser() -> SD3Transformer2DModel:
    torch.manual_seed(0)
    width = HEADS * HEAD_SIZE
    return SD3Transformer2DModel(
        sample_size=LATENT,
        patch_size=2,
        in_channels=16,
        num_layers=BLOCKS,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        joint_attention_dim=width,
        caption_projection_dim=width,
        pooled_projection_dim=width,
        pos_embed_max_size=LATENT,
    ).eval()


def pruned(model: SD3Transformer2DModel, pattern: str, sparsity: float) -> SD3Transformer2DModel:
    made = copy.deepcopy(model)
    pipe = type("StableDiffusion3Pipeline", (SimpleNamespace,), {})(transformer=made)
    prune(pipe, PruneSpec(method="magnitude", pattern=pattern, sparsity=sparsity))
    return made


@torch.no_grad()
def main(out: Path = Path("benchmarks/structured.md"), threads: int = 2, rounds: int = 8) -> None:
    """Write a table of parameters, FLOPs and times."""
    torch.set_num_threads(threads)
    dense = denoiser()
    arguments = sd3.example(dense, LATENT, LATENT, Sampling(max_sequence_length=0))
    arguments = {name: torch.randn(value.shape) for name, value in arguments.items()}
    lines = [
        f"SD3 transformer, {BLOCKS} blocks of {HEADS} heads of {HEAD_SIZE}, {LATENT // 2}×{LATENT // 2} picture and "
        f"{sd3.CLIP_TOKENS} text tokens, batch 2, float32, {threads} threads, {platform.machine()}; medians of "
        f"{rounds} calls each, in turns; made by "
        f"`python benchmarks/structured.py --threads {threads} --rounds {rounds}`.",
        "",
        "| pattern | sparsity | parameters, M | GFLOPs | fewer FLOPs | dense, ms | pruned, ms | speed-up |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]

    def flops(model: SD3Transformer2DModel) -> int:
        with FlopCounterMode(display=False) as counter:
            model(**arguments)
        return int(counter.get_total_flops())

    whole = flops(dense)
    for pattern, sparsity in (("unstructured", 0.5), ("heads", 0.25), ("neurons", 0.3), ("structured", 0.15),
                              ("structured", 0.3), ("structured", 0.5)):  # fmt: skip
        small = pruned(dense, pattern, sparsity)
        times: dict[str, list[float]] = {"dense": [], "small": []}
        for _ in range(rounds + 1):
            for name, model in (("dense", dense), ("small", small)):
                times[name] += clocked(lambda m=model: m(**arguments), 1)
        before, after = (float(np.median(times[name][1:])) for name in ("dense", "small"))
        count = sum(int(p.count_nonzero()) for p in small.parameters()) / 1e6
        left = flops(small)
        lines.append(
            f"| {pattern} | {sparsity} | {count:.1f} | {left / 1e9:.1f} | {1 - left / whole:.1%} | {before:.0f} "
            f"| {after:.0f} | {before / after:.2f}× |"
        )
        print(lines[-1], flush=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
