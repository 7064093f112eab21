"""Calibration: real sampling runs of the model as pruned so far, their layer inputs summed up by step.

Prompts are encoded once, latents are never decoded, every prompt has noise of its own, and layers with the same
input share one statistic.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from obsdiff import models, registry
from obsdiff.errors import LayerError, SpecError
from obsdiff.packages import Group
from obsdiff.schedulers import using
from obsdiff.spec import PruneSpec
from obsdiff.statistics import STATISTICS, Statistic, StatisticError

Alphas = Callable[[int], Tensor]


def prompt_seed(identity: str, seed: int) -> int:
    """A 63-bit seed from a prompt's identity and the run's seed."""
    return int.from_bytes(sha256(f"{seed}/{identity}".encode()).digest()[:8], "big") >> 1


def noise(identities: Sequence[str], seed: int) -> list[torch.Generator]:
    """One CPU generator a prompt, so that its noise does not depend on the batch or the device."""
    return [torch.Generator("cpu").manual_seed(prompt_seed(identity, seed)) for identity in identities]


@dataclass
class Calibration:
    """Encoded calibration prompts, run through the pipeline once a package.

    Attributes:
        pipe: the pipeline, its denoiser pruned so far.
        spec: prompts, sampling, weighting and seed are read.
        alphas: T → the weights of T steps, (T,); the spec's weighting where left out.
    """

    pipe: Any
    spec: PruneSpec
    alphas: Alphas | None = None
    embeds: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        if not self.spec.prompts:
            raise SpecError(f"prompts: method {self.spec.method!r} calibrates and was given none; pass --prompts-file")
        if self.alphas is None:
            self.alphas = alphas_of(self.spec)
        family = models.family_of(self.pipe)
        batches = [
            family.encode(self.pipe, self.spec.prompts[rows], self.spec.sampling)
            for rows in batched(len(self.spec.prompts), self.spec.sampling.batch_size)
        ]
        self.embeds = {k: torch.cat([b[k] for b in batches]) for k in batches[0]}

    def statistics(self, denoiser: nn.Module, groups: Sequence[Group], kind: str, what: str) -> dict[Group, Statistic]:
        """Sample all prompts once and sum up the input of every group.

        The step is the sampling loop's, told by the pipeline's callback: a scheduler may call the denoiser more
        often than it was asked for steps (Heun).

        Raises:
            LayerError: a layer was never called, or received NaN or infinity.
        """
        stats: dict[Group, Statistic] = {}
        step = 0
        handles = []
        for group in groups:
            layer = models.linear(denoiser, group[0])
            device = torch.device("cpu") if self.spec.offload_statistics else layer.weight.device
            stats[group] = STATISTICS[kind](layer.in_features, device)

            def hook(_: nn.Module, args: tuple[Tensor, ...], stat: Statistic = stats[group]) -> None:
                assert self.alphas is not None
                stat.add(args[0].detach(), float(self.alphas(self.pipe.num_timesteps)[step]))

            handles.append(layer.register_forward_pre_hook(hook))

        def count(pipe: Any, i: int, t: Any, kwargs: dict) -> dict:
            nonlocal step
            step = i + 1
            return kwargs

        prompts, size = self.spec.prompts, self.spec.sampling.batch_size
        try:
            for rows in tqdm(batched(len(prompts), size), desc=what, unit="batch", leave=False, mininterval=2):
                step = 0
                identities = [f"{i}/{prompts[i]}" for i in range(rows.start, rows.stop)]
                sample(self.pipe, {k: v[rows] for k, v in self.embeds.items()}, self.spec, identities, count)
        finally:
            for handle in handles:
                handle.remove()
        for group, stat in stats.items():
            try:
                stat.check()
            except StatisticError as error:
                raise LayerError(f"{group[0]}: {error}") from None
        return stats


def alphas_of(spec: PruneSpec) -> Alphas:
    """T → the weights of T steps, as the spec's method and weighting have it."""
    if not spec.facts["WEIGHTED"]:
        return lambda steps: torch.ones(steps, dtype=torch.float64)
    weighting = registry.load("obsdiff.weightings", spec.weighting)
    table = (spec.alphas,) if spec.takes_table else ()
    return lambda steps: weighting.alphas(steps, spec.alpha_min, spec.alpha_max, *table)


@torch.no_grad()
def sample(pipe: Any, embeds: dict[str, Tensor], spec: PruneSpec, identities: Sequence[str], callback: Any) -> None:
    pipe.set_progress_bar_config(disable=True)
    with using(pipe, spec.sampling):
        pipe(
            **embeds,
            **spec.sampling.arguments(),
            generator=noise(identities, spec.seed),
            output_type="latent",
            callback_on_step_end=callback,
        )


def batched(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
