"""What is timed and counted: block, denoiser and pipeline as calls without arguments."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from torch import nn

from eval.images.trajectories import Batch, encoded
from obsdiff import models, packages
from obsdiff.captions.prompts import Prompt
from obsdiff.observing import first_call
from obsdiff.pipelines.guard import eager
from obsdiff.pipelines.staging import denoising
from obsdiff.sampling import Sampling, run_pipeline

PROMPT = Prompt("latency", "a photograph of a tiger")
"""time and work do not depend on the words, which every family's text encoders take as many tokens of"""

Calls = Mapping[str, Callable[[], Any]]


def middle_block(family: ModuleType, denoiser: nn.Module) -> str:
    """The block that holds the middle one of the prunable layers."""
    names = packages.layers(family.units(denoiser))
    middle = names[len(names) // 2]
    found: str = next(block for block in family.blocks(denoiser) if middle.startswith(f"{block}."))
    return found


def caught(module: nn.Module, call: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the first call that `module` gets in `call`, which ends there; compiled networks run eagerly."""
    with eager():
        return first_call(module, call)


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
    block = denoiser.get_submodule(middle_block(family, denoiser))
    args, kwargs = caught(denoiser, lambda: batch.sample(pipe, sampling, seed=0))
    inner = caught(block, lambda: denoiser(*args, **kwargs))
    return {"block": lambda: block(*inner[0], **inner[1]), "denoiser": lambda: denoiser(*args, **kwargs)}


def pipeline_of(pipe: Any, prompt: Prompt, sampling: Sampling, size: int = 1) -> Callable[[], Any]:
    """The whole pipeline as a call without arguments, its components where its source's offload has them."""
    inputs, ids = {"prompt": [prompt.caption] * size}, [prompt.id] * size
    return lambda: run_pipeline(pipe, inputs, sampling, ids, seed=0, output="pil")
