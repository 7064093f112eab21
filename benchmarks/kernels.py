"""What pruning buys on a GPU at real size: one denoiser call of the paper's models, dense against pruned, interleaved.

    python -m benchmarks.kernels --names sd3-medium sd35-large flux1-dev --out benchmarks/kernels.md

Weights are random, in half precision, made on the device from the shipped configurations: time depends on shapes, zeros
and kernels, not on what a model has learnt. The pruned weights are those of a random choice, which no kernel can tell
from another.
"""

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from benchmarks.candidates import spec_of
from benchmarks.latency import shown, table
from benchmarks.made import as_typed
from benchmarks.variants import TOLERANCE, Verdict, judge, semi_structured, twin
from eval.profile.latency import SECONDS, in_turns, quartiles, ratios
from eval.profile.machine import hardware
from eval.sweep.config import read_model
from obsdiff import PruneSpec, models, targets
from obsdiff.devices import stated_precision
from obsdiff.planning.counting import own_side
from obsdiff.planning.plan import remove
from obsdiff.planning.weightless import meta_denoiser
from obsdiff.sampling import Sampling
from obsdiff.source import Source

PATTERNS = ("unstructured=0.5", "2:4", "structured=0.3", "structured=0.5")
STD = 0.02


def random_denoiser(model: str, device: str, dtype: torch.dtype, blocks: int | None) -> tuple[Any, nn.Module, Sampling]:
    """Family, denoiser with normal weights on the device, and the model file's sampling.

    Args:
        blocks: of every list of blocks, the first so many; all by default.
    """
    about = read_model(model, files=False)
    family, denoiser = meta_denoiser(Source(**about["source"] | {"device": "cpu"}))
    for name, part in denoiser.named_children():
        if isinstance(part, nn.ModuleList) and blocks:
            setattr(denoiser, name, part[:blocks])
    denoiser = denoiser.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for tensor in [*denoiser.parameters(), *denoiser.buffers()]:
        tensor.normal_(std=STD)
    return family, denoiser, Sampling(**about["sampling"])


def call_of(
    family: Any, denoiser: nn.Module, sampling: Sampling, size: int | None, prompts: int
) -> Callable[[nn.Module], Tensor]:
    """A call with normal inputs for so many prompts, guided as in the sampling, as a function of the module."""
    side = size // 8 if size else own_side(denoiser)
    arguments = family.example(denoiser, side, side, sampling)
    batch = len(arguments["hidden_states"])
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            if value.ndim and len(value) == batch:
                arguments[name] = value = value.repeat(prompts, *[1] * (value.ndim - 1))
            if value.is_floating_point():
                value.normal_()
    return lambda module: module(**arguments, return_dict=False)[0]


def masked(denoiser: nn.Module, family: Any, spec: PruneSpec) -> nn.Module:
    """A twin with zeros where the pattern has them."""
    made = twin(denoiser)
    for target in targets.find(family, denoiser, spec):
        for name in target.layers:
            layer = models.linear(made, name)
            weight = layer.weight.detach().clone()
            if spec.pattern == "2:4":
                weight.view(-1, 4)[:, 2:] = 0.0
            else:
                weight.masked_fill_(torch.rand_like(weight) < spec.amount, 0.0)
            layer.weight = nn.Parameter(weight, requires_grad=False)
    return made


def shrunk(denoiser: nn.Module, family: Any, spec: PruneSpec) -> nn.Module:
    """A twin without the last heads and neurons of every block."""
    made = twin(denoiser)
    for target in targets.find(family, made, spec):
        remove(made, target, spec.amount)
    return made


def verdict_row(weights: str, verdict: Verdict) -> list[str]:
    """Other kernels against the same weights on dense ones."""
    gain = "" if verdict.speedup is None else shown(verdict.speedup, 3)
    error = "" if verdict.error is None else f"{verdict.error:.2g}"
    return [weights, "2:4", "", gain, error, verdict.reason]


@torch.no_grad()
def rows_of(
    model: str, device: str, dtype: torch.dtype, size: int | None, prompts: int, rounds: int, blocks: int | None
) -> list[list[str]]:
    """model, weights, kernels, ms, speed-up over dense (of 2:4 kernels: over the same weights), error, remark."""
    family, dense, sampling = random_denoiser(model, device, dtype, blocks)
    call = call_of(family, dense, sampling, size, prompts)
    rows: list[list[str]] = []
    for text in PATTERNS:
        spec = spec_of(text)
        pruned = (shrunk if spec.resolved.structured else masked)(dense, family, spec)
        turns = {"dense": dense, "pruned": pruned}
        times = in_turns({k: partial(dict, {"": partial(call, m)}) for k, m in turns.items()}, rounds)
        if not rows:
            rows.append(["dense", "dense", shown(quartiles(times["dense", ""])), "", "", ""])
        gain = ratios(times["dense", ""], times["pruned", ""])
        rows.append([text, "dense", shown(quartiles(times["pruned", ""])), shown(gain, 3), "", ""])
        if spec.pattern == "2:4":
            tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
            rows.append(
                verdict_row(
                    text, judge(partial(call, pruned), partial(sparse, pruned, call), tolerance, rounds, SECONDS)
                )
            )
        del pruned, turns
        gc.collect()
    return [[model, *row] for row in rows]


def sparse(denoiser: nn.Module, call: Callable[[nn.Module], Tensor]) -> Callable[[], Tensor]:
    return partial(call, semi_structured(denoiser))


@stated_precision(None)
def main(
    names: tuple[str, ...] = ("sd3-medium", "sd35-large", "flux1-dev"),
    out: Path = Path("benchmarks/kernels.md"),
    device: str = "cuda",
    dtype: Literal["bfloat16", "float16"] = "bfloat16",
    size: int | None = None,
    prompts: int = 1,
    rounds: int = 9,
    blocks: int | None = None,
) -> None:
    """Measure and write the table.

    Args:
        names: files of config/models, transformers.
        size: pixels of both sides; the model's own by default.
        prompts: of a call, guided as in the model file.
        blocks: of every list of blocks, the first so many, for a quick look.
    """
    torch.manual_seed(0)
    rows = [
        row for model in names for row in rows_of(model, device, getattr(torch, dtype), size, prompts, rounds, blocks)
    ]
    name = hardware(device)
    lines = [
        "# Kernels at real size",
        "",
        f"One denoiser call for {prompts} prompt(s), {f'{size}×{size}' if size else 'at its own size'}, random weights "
        f"in {dtype}{f', {blocks} blocks' if blocks else ''}; {name}, torch {torch.__version__}; dense and pruned "
        f"interleaved, {rounds} rounds: median [25th, 75th percentile]. Made by "
        f"`{as_typed('kernels')}`.",
        "",
        "The speed-up of 2:4 kernels is over the same weights on dense kernels.",
        "",
        *table(rows, "model | weights | kernels | ms | speed-up | error | refused because"),
    ]
    out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    tyro.cli(main)
