"""How far a pruned denoiser strays from the dense one, by depth and by step of the sampling loop."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eval.images.trajectories import Batch, encoded
from eval.model_metrics import Deviation
from obsdiff import models, onednn
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.pruned import Pruned
from obsdiff.checkpoints.swapping import DENSE, Swaps, swapping
from obsdiff.devices import stated_precision
from obsdiff.pipelines.staging import denoising
from obsdiff.sampling import Sampling, steps_of

Sums = defaultdict[tuple[str, int], Tensor]
"""(block or what else is compared, step) → squared difference and squared norm of the dense one, (2,) float64"""


def tensors(output: Any) -> list[Tensor]:
    """The tensors of a block's output: a tensor, or a tuple of streams of which one may be None."""
    parts = output if isinstance(output, tuple | list) else (output,)
    return [part for part in parts if isinstance(part, Tensor)]


def compared(own: Sequence[Tensor], dense: Sequence[Tensor]) -> Tensor:
    """Squared difference and squared norm of the dense one over all elements, (2,) float64."""
    sums = torch.zeros(2, dtype=torch.float64)
    for a, b in zip(own, dense, strict=True):
        error = a.to(b.device).float() - b.float()
        sums += torch.stack([error.square().sum(), b.float().square().sum()]).cpu()
    return sums


def ratio(sums: Tensor) -> float:
    return float(sums[0] / sums[1]) if sums[1] > 0 else 0.0


class Watch:
    """Compares both denoisers, block by block, on the inputs that the dense one gets in a sampling run."""

    def __init__(self, denoiser: nn.Module, swaps: Swaps, names: Sequence[str], sums: Sums) -> None:
        self.swaps, self.sums, self.step, self.again = swaps, sums, 0, False
        self.outputs: dict[str, list[Tensor]] = {}
        blocks = [
            denoiser.get_submodule(name).register_forward_hook(
                lambda _, args, out, name=name: self.block(name, tensors(out))
            )
            for name in names
        ]
        self.handles = [*blocks, denoiser.register_forward_hook(self.call, with_kwargs=True)]

    def block(self, name: str, output: list[Tensor]) -> None:
        if self.again:
            self.sums[name, self.step] += compared(output, self.outputs[name])
        else:
            self.outputs[name] = [tensor.clone() for tensor in output]

    def call(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if self.again:
            return
        self.again = True
        self.swaps["pruned"]()
        try:
            denoiser(*args, **kwargs)
        finally:
            self.swaps[DENSE]()
            self.again = False
            self.outputs.clear()

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


@stated_precision(onednn.SMALL)
@torch.no_grad()
def deviation(pipe: Any, pruned: Pruned, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> Deviation:
    """Relative squared errors ‖pruned − dense‖² / ‖dense‖² of blocks and latents, summed over prompts before dividing.

    A block's error at a step is that of its output (all streams of it) when the whole pruned denoiser gets the inputs
    of the dense model's trajectory: it gathers over the blocks before it, and not over the steps. The latents' is
    between two trajectories from the same noise, and so gathers over both.

    Args:
        pipe: the dense pipeline; it is dense again afterwards.

    Returns:
        Numbers per step, first step first; a step is a turn of the sampling loop.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    names = family.blocks(denoiser)
    sums: Sums = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))
    with (
        denoising(pipe, lambda: encoded(pipe, prompts, sampling)) as batches,
        swapping(pipe, {"pruned": pruned}, resident=True) as swaps,
    ):
        for batch in batches:
            compare(pipe, swaps, batch, names, sums, sampling, seed)
    steps = range(steps_of(pipe))
    return Deviation(
        blocks=list(names),
        by_block=[[ratio(sums[name, step]) for step in steps] for name in names],
        latents=[ratio(sums["latents", step]) for step in steps],
    )


def compare(
    pipe: Any, swaps: Swaps, batch: Batch, names: Sequence[str], sums: Sums, sampling: Sampling, seed: int
) -> None:
    """Add what a batch's dense and pruned trajectories differ by to `sums`, at blocks of these names and in latents."""
    watch, kept = Watch(models.denoiser_of(pipe), swaps, names, sums), []

    def keep(pipe: Any, i: int, t: Any, values: dict) -> dict:
        kept.append(values["latents"].cpu().clone())
        watch.step = i + 1
        return {}

    def hold_against(pipe: Any, i: int, t: Any, values: dict) -> dict:
        sums["latents", i] += compared([values["latents"].cpu()], [kept[i]])
        return {}

    try:
        batch.sample(pipe, sampling, seed, keep)
    finally:
        watch.close()
    swaps["pruned"]()
    try:
        batch.sample(pipe, sampling, seed, hold_against)
    finally:
        swaps[DENSE]()
