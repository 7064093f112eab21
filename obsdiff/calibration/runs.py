"""Calibration: real sampling runs of the model as pruned so far, their layer inputs summed up by step.

Prompts are encoded once, latents are never decoded, every prompt has noise of its own, and layers with the same
input share one statistic.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from obsdiff import matrices, models, weightings
from obsdiff.errors import LayerError, SpecError
from obsdiff.packages import Group
from obsdiff.pipelines.guard import finite
from obsdiff.pipelines.samplers import using
from obsdiff.sampling import batched, explained, run_pipeline, steps_of
from obsdiff.solver.statistics import STATISTICS, Statistic, StatisticError
from obsdiff.spec import PruneSpec

Alphas = Callable[[int], Tensor]


@dataclass
class Calibration:
    """Encoded calibration prompts, run through the pipeline once per package.

    Attributes:
        pipe: the pipeline, its denoiser pruned so far.
        spec: prompts, sampling, weighting and seed are read.
        alphas: T → the weights of T steps, (T,); by default the spec's weighting.
    """

    pipe: Any
    spec: PruneSpec
    alphas: Alphas | None = None
    inputs: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        require_prompts(self.spec)
        if self.alphas is None:
            self.alphas = alphas_of(self.spec)
        self.inputs = [self.encode(rows) for rows in self.batches]

    @property
    def batches(self) -> list[slice]:
        return batched(len(self.spec.prompts), self.spec.sampling.batch_size)

    def encode(self, rows: slice) -> dict[str, Any]:
        """A batch's inputs of the pipeline's call; SpecError if one is not finite."""
        family, spec = models.family_of(self.pipe), self.spec
        with using(self.pipe, spec.sampling):
            inputs: dict[str, Any] = family.encode(self.pipe, spec.prompts[rows], spec.sampling)
        for name, value in inputs.items():
            if not all(map(finite, tensors(value))):
                raise SpecError(
                    f"prompts: the text encoders give NaN or infinity ({name}) for {self.where(rows)}; load the model "
                    "in another dtype, or check the encoders' weights"
                )
        return inputs

    def where(self, rows: slice) -> str:
        """A batch in words."""
        return where(self.spec.prompts, rows)

    def statistics(self, denoiser: nn.Module, groups: Sequence[Group], kind: str, what: str) -> dict[Group, Statistic]:
        """Sample all prompts once and sum up the input of every group.

        The step is the sampling loop's, told by the pipeline's callback: a scheduler may call the denoiser more
        often than it was asked for steps (Heun).

        Raises:
            LayerError: a layer was never called, or NaN or infinity arose; with layer, step and prompts.
        """
        return self.several(denoiser, groups, (kind,), what)[kind]

    def several(
        self, denoiser: nn.Module, groups: Sequence[Group], kinds: Sequence[str], what: str
    ) -> dict[str, dict[Group, Statistic]]:
        """statistics() of several kinds at once, by kind."""
        found = {kind: begun(denoiser, groups, kind, self.spec) for kind in kinds}
        stats = [stat for of in found.values() for stat in of.values()]
        steps = Steps()

        def alpha() -> float:
            assert self.alphas is not None
            return float(self.alphas(steps_of(self.pipe))[steps.now])

        odd: slice | None = None
        with summing(denoiser, list(found.values()), alpha):
            for rows in tqdm(self.batches, desc=what, unit="batch", leave=False, mininterval=2):
                self.run(rows, steps)
                if not all(stat.finite for stat in stats):
                    odd = rows
                    break
        if odd:
            self.blame(denoiser, odd)
        for of in found.values():
            check(of)
        return found

    def run(self, rows: slice, steps: "Steps") -> None:
        """Sample one batch.

        Raises:
            SpecError: the pipeline refuses the call, its components do not fit each other, or memory is short.
        """
        steps.now = 0
        identities = [f"{i}/{self.spec.prompts[i]}" for i in range(rows.start, rows.stop)]
        with explained(self.pipe, self.spec.sampling, self.where(rows)):
            sample(self.pipe, self.inputs[self.batches.index(rows)], self.spec, identities, steps)

    def blame(self, denoiser: nn.Module, rows: slice) -> None:
        """Sample a batch again and raise LayerError where NaN or infinity arises first."""
        steps = Steps()
        place = self.where(rows)
        with blamed(denoiser, lambda: f"step {steps.now + 1} of {steps_of(self.pipe)}, {place}"):
            self.run(rows, steps)


class Steps:
    """The pipeline's callback: counts the turns of the sampling loop."""

    now = 0

    def __call__(self, pipe: Any, i: int, t: Any, values: dict) -> dict:
        self.now = i + 1
        return values


def require_prompts(spec: PruneSpec) -> None:
    """Raise SpecError where a run that calibrates has nothing to do it with."""
    if not spec.prompts:
        raise SpecError(f"prompts: method {spec.method!r} calibrates and was given none; pass --prompts-file")


def where(prompts: Sequence[str], rows: slice) -> str:
    """A batch of prompts in words."""
    return f"calibration prompts {rows.start + 1} to {rows.stop} (the first is {prompts[rows.start][:60]!r})"


def begun(denoiser: nn.Module, groups: Sequence[Group], kind: str, spec: PruneSpec) -> dict[Group, Statistic]:
    """An empty statistic of every group, where the spec wants it to be."""
    layers = {group: models.linear(denoiser, group[0]) for group in groups}
    main = torch.device("cpu") if spec.offload_statistics else None
    return {g: STATISTICS[kind](matrices.shape(of)[1], main or of.weight.device) for g, of in layers.items()}


@contextmanager
def summing(
    denoiser: nn.Module, several: Sequence[Mapping[Group, Statistic]], alpha: Callable[[], float]
) -> Iterator[None]:
    """Inside the block, every group's input is added to its statistics, of the same groups each.

    Args:
        alpha: the weight of the step, at the time of the call.
    """
    with ExitStack() as stack:
        for group in several[0]:

            def hook(layer: Any, args: tuple[Tensor, ...], group: Group = group) -> None:
                weight, x = alpha(), matrices.tokens(layer, args[0].detach())
                for stats in several:
                    stats[group].add(x, weight)

            stack.callback(models.linear(denoiser, group[0]).register_forward_pre_hook(hook).remove)
        yield


def check(stats: Mapping[Group, Statistic]) -> None:
    """Raise LayerError, by the layer's name, where a statistic has seen nothing, or NaN or infinity."""
    for group, stat in stats.items():
        try:
            stat.check()
        except StatisticError as error:
            raise LayerError(f"{group[0]}: {error}") from None


@contextmanager
def blamed(denoiser: nn.Module, place: Callable[[], str]) -> Iterator[None]:
    """Inside the block, LayerError where NaN or infinity arises in the denoiser.

    Args:
        place: step and prompts in words, at the time of the call.
    """

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str) -> None:
        if all(finite(tensor) for tensor in tensors(output)):
            return
        part = "output" if all(finite(tensor) for tensor in tensors([args, kwargs])) else "input"
        raise LayerError(
            f"{name or type(module).__name__}: its {part} holds NaN or infinity at {place()}; load the model in "
            "bfloat16 or float32"
        )

    handles = [
        module.register_forward_hook(partial(hook, name=name), with_kwargs=True)
        for name, module in denoiser.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors(nested: Any) -> Iterator[Tensor]:
    """The floating-point tensors of nested tuples, lists and dicts."""
    if isinstance(nested, Tensor):
        if nested.is_floating_point():
            yield nested
    elif isinstance(nested, tuple | list | Mapping):
        for part in nested.values() if isinstance(nested, Mapping) else nested:
            yield from tensors(part)


def alphas_of(spec: PruneSpec) -> Alphas:
    """T → the weights of T steps, as the spec's method and weighting have it."""
    if not spec.traits.weighted:
        return cache(lambda steps: torch.ones(steps, dtype=torch.float64))
    return cache(lambda steps: weightings.alphas(spec.weighting, steps, spec.alpha_min, spec.alpha_max, spec.alphas))


@torch.no_grad()
def sample(pipe: Any, inputs: dict[str, Any], spec: PruneSpec, identities: Sequence[str], callback: Any) -> None:
    """Sample a batch with the spec's scheduler; the pipeline keeps its own."""
    with using(pipe, spec.sampling):
        run_pipeline(pipe, inputs, spec.sampling, identities, spec.seed, callback=callback)
