"""Wall-clock time of a denoiser's block and call and of the whole pipeline, dense and pruned weights in turns.

A machine's speed drifts by more than most speed-ups. So dense and pruned weights take turns in one process, a round
gives the ratio of its two medians, and a speed-up is the median of those ratios with their quartiles: where 1 lies
between them, nothing was shown.
"""

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

from eval.trajectories import Batch, encoded
from eval.work import flops, nbytes, peak_bytes, zero_flops
from obsdiff import devices, models, packages, surgery
from obsdiff.calibration import noise
from obsdiff.checkpoint import Pruned
from obsdiff.guard import eager
from obsdiff.prompts import Prompt
from obsdiff.spec import Sampling, Source
from obsdiff.staging import denoising

ROUNDS, PIPELINES = 5, 3
SECONDS = 0.02
"""of a call's repetitions in one turn; a call that takes longer runs once after its warm-up"""

BLOCK = r".*transformer_blocks\.\d+"
"""names of transformer blocks, in every family"""

SPEEDUPS = {"block": "block_speedup", "denoiser": "speedup"}
"""call → the name of its speed-up"""

Calls = Mapping[str, Callable[[], Any]]


def machine(source: Source) -> dict[str, Any]:
    """What the timings are of: the GPU or processor, the weights' dtype, whether float32 products may be TF32."""
    cuda = source.device.startswith("cuda")
    name = torch.cuda.get_device_name(source.device) if cuda else processor()
    return {"device": name, "dtype": source.dtype, "tf32": devices.TF32}


def processor() -> str:
    """The processor's name where the system tells it, else its architecture alone."""
    told = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", told.read_text()) if told.is_file() else None
    return f"{platform.machine()} CPU" + (f", {named[1].strip()}" if named else "")


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
def installing(pipe: Any, pruned: Pruned) -> Iterator[dict[str, Callable[[], None]]]:
    """'dense' and 'pruned' → what installs those weights in a dense pipeline, which is dense again afterwards."""
    install = weights_of(pipe, pruned)
    try:
        yield install
    finally:
        install["dense"]()


def weights_of(pipe: Any, pruned: Pruned) -> dict[str, Callable[[], None]]:
    """'dense' and 'pruned' → what installs those weights in the dense pipeline's denoiser."""
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    heads = {site.owner: (site.groups, len(kept)) for site, kept in pruned.sites(family, denoiser) if site.owner}
    dense = {name: surgery.state_of(models.linear(denoiser, name)) for name in pruned.states}
    return {
        "dense": lambda: surgery.install(denoiser, dense, {owner: whole for owner, (whole, _) in heads.items()}),
        "pruned": lambda: surgery.install(denoiser, pruned.states, {owner: left for owner, (_, left) in heads.items()}),
    }


def clocked(call: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Median wall-clock ms of a call after a warm-up, the GPU's work included, on torch's present threads."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return 1e3 * timer.blocked_autorange(min_run_time=seconds).median


def in_turns(
    turns: Mapping[str, Callable[[], Calls]], rounds: int = ROUNDS, seconds: float = SECONDS
) -> dict[tuple[str, str], list[float]]:
    """Time what takes turns; every other round goes backwards, so that a steady drift favours nobody.

    Args:
        turns: name → what begins its turn and gives the calls to time in it.

    Returns:
        (turn, call) → ms of every round.
    """
    times: dict[tuple[str, str], list[float]] = {}
    order = list(turns.items())
    for number in range(rounds):
        for name, begin in order[:: -1 if number % 2 else 1]:
            for what, call in begin().items():
                times.setdefault((name, what), []).append(clocked(call, seconds))
    return times


def quartiles(values: Sequence[float]) -> list[float]:
    """25th, 50th and 75th percentile."""
    return [round(float(q), 4) for q in np.percentile(values, [25, 50, 75])]


def ratios(base: Sequence[float], other: Sequence[float]) -> list[float]:
    """Quartiles of base over other, round by round: how many times faster `other` is."""
    return quartiles([b / o for b, o in zip(base, other, strict=True)])


@devices.stated_precision()
@torch.no_grad()
def latency(
    pipe: Any, pruned: Pruned, prompt: Prompt, sampling: Sampling, rounds: int = ROUNDS, seconds: float = SECONDS
) -> dict[str, Any]:
    """Time and work of dense and pruned weights for one prompt and for a full batch; nothing else may run.

    One prompt is latency: on a small model it is bound by the overhead of calls, which pruning leaves. A full batch of
    `sampling.batch_size` prompts is bound by arithmetic and memory, which removed heads and neurons lessen.

    Args:
        pipe: the dense pipeline; it is dense again afterwards.

    Returns:
        block_ms (of the block in the middle), denoiser_ms, pipeline_ms: 25th, 50th and 75th percentile, pruned, one
        prompt; block_speedup, speedup of block and denoiser: the median ratio, and its 25th and 75th percentile under
        block_speedup_quartiles, speedup_quartiles. batch: the same at full batch, {size, block_ms, denoiser_ms,
        block_speedup, speedup and their quartiles}. flops of a denoiser call for one prompt: dense, pruned, and ideal
        (of the pruned one without products with zeros). memory of that call: peak bytes, the denoiser's weights
        included, dense and pruned. threads.
    """
    size = sampling.batch_size
    record: dict[str, Any] = {"threads": torch.get_num_threads()}
    with ready(pipe, prompt, sampling, sorted({1, size})) as calls, installing(pipe, pruned) as install:
        timed = {what: calls[1][what] for what in SPEEDUPS}
        if size > 1:
            timed |= {f"batch_{what}": calls[size][what] for what in SPEEDUPS}
        record |= work_of(models.denoiser_of(pipe), pruned, install, calls[1]["denoiser"])

        def turn(which: str, timed: Calls = timed) -> Calls:
            install[which]()
            return timed

        times = in_turns({which: partial(turn, which) for which in install}, rounds, seconds)
    whole = {"pipeline": pipeline_of(pipe, prompt, sampling)}
    with installing(pipe, pruned) as install:
        install["pruned"]()
        pipelines = in_turns({"pruned": lambda: whole}, min(rounds, PIPELINES), seconds)
    record |= {"pipeline_ms": quartiles(pipelines["pruned", "pipeline"])}
    record |= of_rounds(times, "")
    return record | {"batch": {"size": size} | of_rounds(times, "batch_" if size > 1 else "")}


def of_rounds(times: Mapping[tuple[str, str], Sequence[float]], prefix: str) -> dict[str, Any]:
    """Quartiles of a block's and a denoiser call's times, pruned, and of their speed-ups."""
    found: dict[str, Any] = {}
    for what, speedup in SPEEDUPS.items():
        dense, pruned = (times[which, f"{prefix}{what}"] for which in ("dense", "pruned"))
        found |= {f"{what}_ms": quartiles(pruned)} | named(speedup, ratios(dense, pruned))
    return found


def work_of(
    denoiser: Any, pruned: Pruned, install: Mapping[str, Callable[[], None]], call: Callable[[], Any]
) -> dict[str, dict[str, int]]:
    """flops and memory of a denoiser call, as latency() has them."""
    work: dict[str, int] = {}
    memory: dict[str, int] = {}
    for which, put in install.items():
        put()
        work[which] = flops(call)
        memory[which] = nbytes(denoiser.parameters()) + peak_bytes(call, denoiser.device)
    install["pruned"]()
    return {"flops": work | {"ideal": work["pruned"] - zero_flops(denoiser, pruned.states, call)}, "memory": memory}


def named(name: str, found: Sequence[float]) -> dict[str, Any]:
    """Quartiles as a record has them: the median by its name, the other two beside it."""
    low, median, high = found
    return {name: median, f"{name}_quartiles": [low, high]}
