"""What is timed and counted: block, denoiser and pipeline as calls without arguments, and weights to put into them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from eval.images.trajectories import Batch, encoded
from obsdiff import models, packages, surgery
from obsdiff.calibration.runs import noise
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.checkpoint import Pruned
from obsdiff.pipelines.guard import eager
from obsdiff.pipelines.staging import denoising
from obsdiff.spec import Sampling

BLOCK = r".*transformer_blocks\.\d+"
"""names of transformer blocks, in every family"""

PROMPT = Prompt("latency", "a photograph of a tiger")
"""time and work do not depend on the words, which every family's text encoders take as many tokens of"""

Calls = Mapping[str, Callable[[], Any]]


def middle_block(denoiser: nn.Module, names: Sequence[str]) -> nn.Module:
    """The transformer block of the prunable layer in the middle; the denoiser itself where its layers are in none."""
    found = re.match(rf"({BLOCK})\.", names[len(names) // 2])
    return denoiser.get_submodule(found[1]) if found else denoiser


class Caught(Exception):
    """Ends a run whose module has got its arguments."""


def caught(module: nn.Module, call: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the first call that `module` gets in `call`, which ends there."""
    first: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first.append((args, kwargs))
        raise Caught

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with eager():
            call()
    except Caught:
        pass
    finally:
        handle.remove()
    return first[0]


@contextmanager
def ready(pipe: Any, prompt: Prompt, sampling: Sampling, sizes: Iterable[int]) -> Iterator[dict[int, Calls]]:
    """Calls of block and denoiser, the denoiser alone on the device for the block of the `with` statement.

    Args:
        pipe: the dense pipeline; the calls follow what is installed in it.
        sizes: prompts at once; they are the same one, since time does not depend on the words.
    """

    def encode() -> dict[int, Batch]:
        return {n: encoded(pipe, [prompt] * n, replace(sampling, batch_size=n))[0] for n in sizes}

    with denoising(pipe, encode) as batches:
        yield {n: calls_of(pipe, batch, sampling) for n, batch in batches.items()}


def calls_of(pipe: Any, batch: Batch, sampling: Sampling) -> dict[str, Callable[[], Any]]:
    """Block and denoiser as calls without arguments, on those that the pipeline gives them in its first step.

    Guidance is included. The pipeline must be staged, or all of it where it computes.
    """
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    block = middle_block(denoiser, packages.layers(family.units(denoiser)))
    args, kwargs = caught(denoiser, lambda: batch.sample(pipe, sampling, seed=0))
    # the denoiser itself where it has no blocks: its hook would stop the call that is looked for
    inner = (args, kwargs) if block is denoiser else caught(block, lambda: denoiser(*args, **kwargs))
    return {"block": lambda: block(*inner[0], **inner[1]), "denoiser": lambda: denoiser(*args, **kwargs)}


def pipeline_of(pipe: Any, prompt: Prompt, sampling: Sampling, size: int = 1) -> Callable[[], Any]:
    """The whole pipeline as a call without arguments, its components where its source's offload has them."""
    pipe.set_progress_bar_config(disable=True)
    return lambda: pipe([prompt.caption] * size, **sampling.arguments(), generator=noise([prompt.id] * size, 0))


@contextmanager
def installing(pipe: Any, weights: Mapping[str, Pruned]) -> Iterator[dict[str, Callable[[], None]]]:
    """'dense' and each name → what installs those weights in a dense pipeline, which is dense again afterwards."""
    install = weights_of(pipe, weights)
    try:
        yield install
    finally:
        install["dense"]()


def weights_of(pipe: Any, weights: Mapping[str, Pruned]) -> dict[str, Callable[[], None]]:
    """'dense' and each name → what installs those weights in the denoiser of a pipeline that is dense now."""
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    changed = {name for pruned in weights.values() for name in pruned.states}
    dense = {name: surgery.state_of(models.linear(denoiser, name)) for name in sorted(changed)}
    sites = {name: [*pruned.sites(family, denoiser)] for name, pruned in weights.items()}
    whole = {site.owner: site.groups for found in sites.values() for site, _ in found if site.owner}

    def put(name: str) -> None:
        surgery.install(denoiser, dense, whole)
        if name in weights:
            left = {site.owner: len(kept) for site, kept in sites[name] if site.owner}
            surgery.install(denoiser, weights[name].states, left)

    return {name: partial(put, name) for name in ("dense", *weights)}
