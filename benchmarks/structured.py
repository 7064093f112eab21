"""Heads and neurons: the time to remove them, and how much faster a denoiser is without them.

    python -m benchmarks.structured --out benchmarks/structured.md
    python -m benchmarks.structured --device cuda --out benchmarks/structured-cuda.md

The first table is of benchmarks/elimination.py. The second is of a randomly initialised `SD3Transformer2DModel`, large
enough for its matrix products to count (the zoo's models are bound by overhead at small batches), against theoretical
speed-ups: FLOPs as torch counts them. Dense and pruned weights take turns in one process, so that a machine whose speed
drifts does not pass for a speed-up.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from benchmarks.candidates import spec_of
from benchmarks.elimination import table
from benchmarks.made import as_typed
from eval.profile.calls import Calls
from eval.profile.latency import in_turns, ratios
from eval.profile.machine import hardware
from eval.profile.work import flops
from obsdiff import Sampling, prune
from obsdiff.checkpoints.swapping import swaps, taken_off
from obsdiff.devices import require, stated_precision
from obsdiff.models import sd3

HEADS, HEAD_SIZE, BLOCKS, LATENT = 12, 64, 6, 32
PATTERNS = ("unstructured=0.5", "heads=0.25", "neurons=0.3", "structured=0.15", "structured=0.3", "structured=0.5")


def pipeline() -> Any:
    """A pipeline of nothing but the transformer."""
    torch.manual_seed(0)
    width = HEADS * HEAD_SIZE
    transformer: Any = SD3Transformer2DModel(
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
    )
    transformer.eval()
    names = [f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")]
    none = dict.fromkeys((*names, "vae"))
    return StableDiffusion3Pipeline(transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), **none)


def speed_ups(device: torch.device, rounds: int) -> Iterator[str]:
    """A table of parameters, FLOPs and times, line by line."""
    pipe = pipeline().to(device)
    denoiser = pipe.transformer
    arguments = sd3.example(denoiser, LATENT, LATENT, Sampling(max_sequence_length=0))
    arguments = {name: torch.randn(value.shape, device=device) for name, value in arguments.items()}
    weights = {text: taken_off(pipe, partial(prune, pipe, spec_of(text))) for text in PATTERNS}
    install = swaps(pipe, weights)

    def call() -> None:
        denoiser(**arguments)

    def turn(name: str) -> Calls:
        install[name]()
        return {"call": call}

    times = in_turns({name: partial(turn, name) for name in install}, rounds)
    yield "| weights | parameters, M | GFLOP | fewer FLOPs | ms | speed-up |"
    yield "|:--|--:|--:|--:|--:|--:|"
    whole = 0
    for name, begin in install.items():
        begin()
        count, left = sum(int(p.count_nonzero()) for p in denoiser.parameters()) / 1e6, flops(call)
        whole = whole or left
        low, median, high = ratios(times["dense", "call"], times[name, "call"])
        yield (
            f"| {name} | {count:.1f} | {left / 1e9:.1f} | {1 - left / whole:.1%} "
            f"| {np.median(times[name, 'call']):.0f} | {median:.2f}× [{low:.2f}, {high:.2f}] |"
        )


@stated_precision()
@torch.no_grad()
def main(
    out: Path = Path("benchmarks/structured.md"),
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 9,
    repeats: int = 2,
) -> None:
    """Write both tables.

    Args:
        device: cpu or cuda.
        rounds: of the denoiser, in turns.
        repeats: of the elimination in blocks, of which the fastest counts; the plain one runs once.
    """
    require(device)
    torch.set_num_threads(threads)
    place = torch.device(device)
    name = hardware(device) + ("" if place.type == "cuda" else f", threads: {threads}")
    lines: list[str] = []

    def write(parts: Iterable[str]) -> None:
        for line in parts:
            lines.append(line)
            print(line, flush=True)
            out.write_text("\n".join(lines) + "\n")

    made = f"{name}, torch {torch.__version__}; made by `{as_typed('structured')}`."
    write(["# Removing heads and neurons", "", made, ""])
    write(
        [
            f"The elimination in float64, fastest of {repeats}, without the factorisation. Floor: the multiply-adds of "
            "both matrices that a removal changes, at the rate of one large product. Plain: costs anew and the whole "
            "inverse downdated at every removal (`benchmarks/plain_elimination.py`).",
            "",
        ]
    )
    write(table(place, repeats))
    write(
        [
            "",
            "# Running without them",
            "",
            f"SD3 transformer, {BLOCKS} blocks of {HEADS} heads of {HEAD_SIZE}, {LATENT // 2}×{LATENT // 2} image "
            f"and {sd3.CLIP_TOKENS} text tokens, batch 2, float32; medians of {rounds} rounds in turns, the speed-up's "
            "25th and 75th percentile in brackets.",
            "",
        ]
    )
    write(speed_ups(place, rounds))


if __name__ == "__main__":
    tyro.cli(main)
