"""What a pruned model is beside its images and its time: layer errors, parameters, bytes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eval.images.trajectories import encoded
from eval.model_metrics import MeasuredLayer
from eval.profile.work import nbytes
from obsdiff import matrices, models, onednn, packages
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.pruned import Checkpoint, Pruned
from obsdiff.devices import stated_precision
from obsdiff.matrices import Layer
from obsdiff.pipelines.staging import denoising
from obsdiff.planning.counting import paper_flops
from obsdiff.sampling import Sampling
from obsdiff.surgery import State


@stated_precision(onednn.SMALL)
@torch.no_grad()
def layer_errors(
    pipe: Any, pruned: Pruned, prompts: Sequence[Prompt], sampling: Sampling, seed: int
) -> list[MeasuredLayer]:
    """Relative squared output error of every layer whose inputs lost weights, alone, on the dense model's inputs.

    Where heads or neurons were removed these are the layers that read them; those that make them have no error of
    their own. A layer that was left alone has none either.

    Args:
        pipe: the dense pipeline.

    Returns:
        In order of execution; error = Σ‖Wx + b − Ŵx − b̂‖² / Σ‖Wx‖² over prompts, steps,
        tokens.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    changed = pruned.consumers(family, denoiser)
    read = [stream.consumer.layer for site, _ in pruned.sites(family, denoiser) for stream in site.streams]
    names = read or reached(family, denoiser, pruned)
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in names}
    with denoising(pipe, lambda: encoded(pipe, prompts, sampling)) as batches:
        handles = [
            models.linear(denoiser, name).register_forward_hook(
                hook_of(models.linear(denoiser, name), state, sums[name])
            )
            for name, state in changed.items()
        ]
        try:
            for batch in batches:
                batch.sample(pipe, sampling, seed)
        finally:
            for handle in handles:
                handle.remove()
    return [
        MeasuredLayer(
            name,
            error=float(sums[name][0] / sums[name][1]) if sums[name][1] > 0 else 0.0,
            sparsity=float((changed[name].weight == 0).double().mean()) if name in changed else 0.0,
        )
        for name in names
    ]


def hook_of(layer: Layer, pruned: State, sums: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A forward hook that adds a layer's squared error and squared output to `sums`, (2,) float64."""
    delta = matrices.matrix(layer) - pruned.weight.to(layer.weight)
    moved = None if pruned.bias is None or layer.bias is None else layer.bias - pruned.bias.to(layer.bias)

    def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        own = layer.bias if layer.bias is not None else 0.0
        error = nn.functional.linear(matrices.tokens(layer, args[0]), delta, moved)
        answer = matrices.tokens(layer, out) - own
        sums.add_(torch.stack([error.float().square().sum(), answer.float().square().sum()]).cpu())

    return hook


def reached(family: Any, denoiser: nn.Module, pruned: Pruned) -> list[str]:
    """The prunable layers in order of execution; 1×1 convolutions of a UNet only where some of them were pruned."""
    few = packages.layers(family.units(denoiser))
    every = packages.layers(models.units(family, denoiser))
    return every if pruned.states.keys() & (set(every) - set(few)) else few


def as_the_paper_counts(pipe: Any, pruned: Pruned) -> int | None:
    """FLOPs of the pruned denoiser as obsdiff.planning.counting.paper_flops counts them, without its weights.

    Args:
        pipe: the dense pipeline.

    Returns:
        None where the pipeline's class has no file in obsdiff/models.
    """
    family, dense = models.family_of(pipe), models.denoiser_of(pipe)
    if models.name_of(family) == models.AUTO:
        return None
    with torch.device("meta"):
        denoiser = type(dense).from_config(dense.config)
    pruned.install(family, denoiser)
    return paper_flops(family, denoiser)


def counts(pipe: Any, pruned: Checkpoint) -> dict[str, Any]:
    """Parameters and bytes, the dense model's and after pruning.

    Args:
        pipe: the dense pipeline; it is pruned afterwards.

    Returns:
        prunable, denoiser, bytes, paper_flops: as Profile has them.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    names = reached(family, denoiser, pruned)

    def tensors() -> dict[str, list[Tensor]]:
        return {"prunable": [models.linear(denoiser, n).weight for n in names], "denoiser": [*denoiser.parameters()]}

    total = {kind: sum(t.numel() for t in found) for kind, found in tensors().items()}
    layers = {models.linear(denoiser, name): state for name, state in pruned.states.items()}
    replaced = [layer.weight for layer in layers]
    replaced += [layer.bias for layer, state in layers.items() if layer.bias is not None and state.bias is not None]
    paper = as_the_paper_counts(pipe, pruned)
    size = {"dense": nbytes(denoiser.parameters())}
    size["disk"] = size["dense"] - nbytes(replaced) + pruned.manifest.weights_bytes
    pruned.install(family, denoiser)
    size["memory"] = nbytes(denoiser.parameters())
    return {
        kind: {"total": total[kind], "nonzero": sum(int(t.count_nonzero()) for t in found)}
        for kind, found in tensors().items()
    } | {"bytes": size, "paper_flops": paper}
