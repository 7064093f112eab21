"""What a pruned model is beside its pictures: layer errors, parameters, latency."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from obsdiff import models, packages
from obsdiff.calibration import batched, noise
from obsdiff.prompts import Prompt
from obsdiff.spec import Sampling

ROUNDS, CALLS = 5, 6


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


def clocked(call: Callable[[], Any], count: int) -> list[float]:
    """Wall-clock ms of each of `count` calls, the GPU's work included."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begun))
    return times


@torch.no_grad()
def latency(pipe: Any, pruned: dict[str, Tensor], prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """Wall-clock time of a denoiser call and of the whole pipeline for one prompt, in ms; nothing else may be running.

    Dense and pruned weights take turns in the same process, so that a machine whose speed drifts does not pass for a
    speed-up. The denoiser is timed on the very arguments that the pipeline gives it.

    Args:
        pipe: the dense pipeline; it is dense again afterwards.
        pruned: layer name → pruned weight.

    Returns:
        denoiser_ms, pipeline_ms: 25th, 50th and 75th percentile, pruned; speedup: dense median over pruned median of
        the denoiser; threads.
    """
    denoiser = models.family_of(pipe).denoiser(pipe)
    dense = {name: models.linear(denoiser, name).weight.detach().clone() for name in pruned}
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
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for which, weights in (("pruned", pruned), ("dense", dense)):
            for name, weight in weights.items():
                models.linear(denoiser, name).weight.copy_(weight)
            denoiser(*args, **kwargs)
            times.setdefault((which, "denoiser_ms"), []).extend(clocked(lambda: denoiser(*args, **kwargs), CALLS))
            if which == "pruned":
                times.setdefault((which, "pipeline_ms"), []).extend(clocked(whole, 1))
    record: dict[str, Any] = {
        what: [round(float(q), 4) for q in np.percentile(times["pruned", what], [25, 50, 75])]
        for what in ("denoiser_ms", "pipeline_ms")
    }
    ratio = np.median(times["dense", "denoiser_ms"]) / np.median(times["pruned", "denoiser_ms"])
    return record | {"speedup": round(float(ratio), 4), "threads": torch.get_num_threads()}
