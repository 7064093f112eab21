"""What a pruned model is beside its pictures: layer errors, parameters, latency."""

import platform
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from obsdiff import models, packages, surgery
from obsdiff.calibration import batched, noise
from obsdiff.checkpoint import Pruned
from obsdiff.prompts import Prompt
from obsdiff.spec import Sampling, Source

ROUNDS, CALLS = 5, 6


@torch.no_grad()
def layer_errors(
    pipe: Any, pruned: Pruned, prompts: Sequence[Prompt], sampling: Sampling, seed: int
) -> list[dict[str, Any]]:
    """Relative squared output error of every layer whose inputs lost weights, alone, on the dense model's inputs.

    Where heads or neurons were removed these are the layers that read them; those that make them have no error of
    their own. A layer that was left alone has none either.

    Args:
        pipe: the dense pipeline.

    Returns:
        [{name, error, sparsity}] in order of execution; error = Σ‖Wx + b − Ŵx − b̂‖² / Σ‖Wx‖² over prompts, steps,
        tokens.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    changed = pruned.consumers(family, denoiser)
    read = [stream.consumer.layer for site, _ in pruned.sites(family, denoiser) for stream in site.streams]
    names = read or packages.layers(family.units(denoiser))
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in names}
    handles = []
    for name, (weight, bias) in changed.items():
        layer = models.linear(denoiser, name)
        delta = layer.weight - weight.to(layer.weight)
        moved = None if bias is None or layer.bias is None else layer.bias - bias.to(layer.bias)

        def hook(
            m: nn.Linear,
            args: tuple[Tensor, ...],
            out: Tensor,
            name: str = name,
            delta: Tensor = delta,
            moved: Tensor | None = moved,
        ) -> None:
            own = m.bias if m.bias is not None else 0.0
            error = nn.functional.linear(args[0], delta, moved)
            sums[name] += torch.stack([error.float().square().sum(), (out - own).float().square().sum()]).double().cpu()

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
            "sparsity": float((changed[name].weight == 0).double().mean()) if name in changed else 0.0,
        }
        for name in names
    ]


def counts(pipe: Any, pruned: Pruned) -> dict[str, dict[str, int]]:
    """Parameters of the prunable layers' weights and of the denoiser: the dense model's, and nonzero after pruning.

    Args:
        pipe: the dense pipeline; it is pruned afterwards.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    names = packages.layers(family.units(denoiser))

    def tensors() -> dict[str, list[Tensor]]:
        return {"prunable": [models.linear(denoiser, n).weight for n in names], "denoiser": [*denoiser.parameters()]}

    total = {kind: sum(t.numel() for t in found) for kind, found in tensors().items()}
    pruned.install(family, denoiser)
    return {
        kind: {"total": total[kind], "nonzero": sum(int(t.count_nonzero()) for t in found)}
        for kind, found in tensors().items()
    }


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


def machine(source: Source) -> dict[str, str]:
    """What the timings are of: the GPU or processor, and the weights' dtype."""
    cuda = source.device.startswith("cuda")
    name = torch.cuda.get_device_name(source.device) if cuda else f"{platform.machine()} CPU"
    return {"device": name, "dtype": source.dtype}


def middle_block(denoiser: nn.Module, names: Sequence[str]) -> nn.Module:
    """The transformer block of the prunable layer in the middle; the denoiser itself where its layers are in none."""
    found = re.match(r"(.*transformer_blocks\.\d+)\.", names[len(names) // 2])
    return denoiser.get_submodule(found[1]) if found else denoiser


def caught(module: nn.Module, call: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the first call that `module` gets in `call`."""
    first: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = module.register_forward_pre_hook(lambda _, args, kwargs: first.append((args, kwargs)), with_kwargs=True)
    call()
    handle.remove()
    return first[0]


@torch.no_grad()
def latency(pipe: Any, pruned: Pruned, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """Wall-clock time of a denoiser's block and call and of the whole pipeline for one prompt; nothing else may run.

    Dense and pruned weights take turns in the same process, so that a machine whose speed drifts does not pass for a
    speed-up. Block and denoiser are timed on the very arguments that the pipeline gives them.

    Args:
        pipe: the dense pipeline; it is dense again afterwards.

    Returns:
        block_ms (of the block in the middle), denoiser_ms, pipeline_ms: 25th, 50th and 75th percentile, pruned;
        block_speedup, speedup: dense median over pruned median of block and denoiser; flops of a denoiser call,
        guidance included; threads.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    heads = {site.owner: (site.groups, len(kept)) for site, kept in pruned.sites(family, denoiser) if site.owner}
    dense = {name: surgery.state_of(models.linear(denoiser, name)) for name in pruned.states}
    turns = (
        ("pruned", pruned.states, {owner: left for owner, (_, left) in heads.items()}),
        ("dense", dense, {owner: whole for owner, (whole, _) in heads.items()}),
    )
    pipe.set_progress_bar_config(disable=True)

    def whole() -> None:
        pipe(prompt.caption, **sampling.arguments(), generator=noise([prompt.id], 0))

    block = middle_block(denoiser, packages.layers(family.units(denoiser)))
    args, kwargs = caught(denoiser, whole)
    block_args, block_kwargs = caught(block, lambda: denoiser(*args, **kwargs))
    times: dict[tuple[str, str], list[float]] = {}
    flops: dict[str, int] = {}
    for _ in range(ROUNDS):
        for which, states, count in turns:
            surgery.install(denoiser, states, count)
            with FlopCounterMode(display=False) as counter:
                denoiser(*args, **kwargs)
            flops[which] = int(counter.get_total_flops())
            times.setdefault((which, "block_ms"), []).extend(clocked(lambda: block(*block_args, **block_kwargs), CALLS))
            times.setdefault((which, "denoiser_ms"), []).extend(clocked(lambda: denoiser(*args, **kwargs), CALLS))
            if which == "pruned":
                times.setdefault((which, "pipeline_ms"), []).extend(clocked(whole, 1))
    record: dict[str, Any] = {
        what: [round(float(q), 4) for q in np.percentile(times["pruned", what], [25, 50, 75])]
        for what in ("block_ms", "denoiser_ms", "pipeline_ms")
    }
    for name, what in (("block_speedup", "block_ms"), ("speedup", "denoiser_ms")):
        record[name] = round(float(np.median(times["dense", what]) / np.median(times["pruned", what])), 4)
    return record | {"flops": flops, "threads": torch.get_num_threads()}
