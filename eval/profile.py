"""What a pruned model is beside its pictures: layer errors, parameters, latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from obsdiff import models, packages
from obsdiff.calibration import batched, noise
from obsdiff.checkpoint import pruned_weights
from obsdiff.prompts import Prompt
from obsdiff.spec import Sampling

SECONDS_EACH = 0.6


@torch.no_grad()
def layer_errors(
    pipe: Any, pruned: dict[str, Tensor], prompts: Sequence[Prompt], sampling: Sampling, seed: int
) -> list[dict[str, Any]]:
    """Relative squared output error of every prunable layer alone, on the dense model's inputs.

    Args:
        pipe: the dense pipeline.
        pruned: layer name → pruned weight (rows, columns); a layer left out has no error.

    Returns:
        [{name, error, sparsity}] in order of execution; error = Σ‖(W − Ŵ)x‖² / Σ‖Wx‖² over prompts, steps, tokens.
    """
    family = models.family_of(pipe)
    denoiser = family.denoiser(pipe)
    names = packages.layers(family.units(denoiser))
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in names}
    handles = []
    for name in pruned:
        layer = models.linear(denoiser, name)
        delta = layer.weight - pruned[name].to(layer.weight)

        def hook(m: nn.Linear, args: tuple[Tensor, ...], out: Tensor, name: str = name, delta: Tensor = delta) -> None:
            bias = m.bias if m.bias is not None else 0.0
            norms = [nn.functional.linear(args[0], delta).float().square().sum(), (out - bias).float().square().sum()]
            sums[name] += torch.stack(norms).double().cpu()

        handles.append(layer.register_forward_hook(hook))
    pipe.set_progress_bar_config(disable=True)
    for rows in batched(len(prompts), sampling.batch_size):
        embeds = family.encode(pipe, [p.caption for p in prompts[rows]], sampling)
        generators = noise([p.id for p in prompts[rows]], seed)
        pipe(**embeds, **sampling.arguments(), generator=generators, output_type="latent")
    for handle in handles:
        handle.remove()
    return [
        {
            "name": name,
            "error": float(sums[name][0] / sums[name][1]) if sums[name][1] > 0 else 0.0,
            "sparsity": float((pruned[name] == 0).double().mean()) if name in pruned else 0.0,
        }
        for name in names
    ]


def counts(pipe: Any) -> dict[str, dict[str, int]]:
    """Parameters, all and nonzero, of the prunable layers' weights and of the whole denoiser."""
    family = models.family_of(pipe)
    denoiser = family.denoiser(pipe)
    prunable = [models.linear(denoiser, name).weight for name in packages.layers(family.units(denoiser))]

    def count(tensors: Sequence[Tensor]) -> dict[str, int]:
        return {"total": sum(t.numel() for t in tensors), "nonzero": sum(int(t.count_nonzero()) for t in tensors)}

    return {"prunable": count(prunable), "denoiser": count(list(denoiser.parameters()))}


def quartiles(statement: str, scope: dict[str, Any], threads: int) -> list[float]:
    """25th, 50th and 75th percentile of a statement's wall-clock time in ms, after one warm-up block."""
    timer = Timer(statement, globals=scope, num_threads=threads)
    timer.blocked_autorange(min_run_time=SECONDS_EACH / 4)
    times = np.array(timer.blocked_autorange(min_run_time=SECONDS_EACH).times) * 1e3
    return [round(float(q), 4) for q in np.percentile(times, [25, 50, 75])]


@torch.no_grad()
def latency(pipe: Any, prompt: Prompt, sampling: Sampling, threads: int) -> dict[str, Any]:
    """Median and quartiles of a denoiser call and of the whole pipeline for one prompt, in ms.

    The denoiser is timed on the very arguments that the pipeline gives it. Nothing else may be running.
    """
    denoiser = models.family_of(pipe).denoiser(pipe)
    caught: dict[str, Any] = {}
    handle = denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: caught.setdefault("call", (args, kwargs)) and None, with_kwargs=True
    )
    pipe.set_progress_bar_config(disable=True)

    def whole() -> None:
        pipe(prompt.caption, **sampling.arguments(), generator=noise([prompt.id], 0))

    whole()
    handle.remove()
    args, kwargs = caught["call"]
    return {
        "denoiser_ms": quartiles("call(*args, **kwargs)", {"call": denoiser, "args": args, "kwargs": kwargs}, threads),
        "pipeline_ms": quartiles("whole()", {"whole": whole}, threads),
        "threads": threads,
    }


def errors_of(pipe: Any, checkpoint: Path, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> list[dict]:
    """layer_errors of a checkpoint on disk."""
    return layer_errors(pipe, pruned_weights(checkpoint), prompts, sampling, seed)
