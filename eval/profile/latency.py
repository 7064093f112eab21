"""Wall-clock time of a denoiser's block and call and of the whole pipeline, dense and pruned weights in turns.

A machine's speed drifts by more than most speed-ups. So dense and pruned weights take turns in one process, a round
gives the ratio of its two medians, and a speed-up is the median of those ratios with their quartiles: where 1 lies
between them, nothing was shown.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Timer

from eval.profile.calls import PROMPT, Calls, pipeline_of, ready
from obsdiff import devices, models, packages
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.pruned import Pruned
from obsdiff.checkpoints.swapping import swapping
from obsdiff.matrices import Layer
from obsdiff.sampling import Sampling
from obsdiff.surgery import State, state_of

ROUNDS, PIPELINES = 5, 3
SECONDS = 0.02
"""of a call's repetitions in one turn; a call that takes longer runs once after its warm-up"""
ZEROED = 0.7
"""share of every prunable layer's weights that is zeroed to time what zeros cost on dense kernels"""

SPEEDUPS = {"block": "block_speedup", "denoiser": "speedup"}
"""call → the name of its speed-up"""


def zeroed(pipe: Any, share: float = ZEROED) -> Pruned:
    """A dense pipeline's weights with the smallest `share` of every prunable layer's set to zero, shapes as they are.

    Dense kernels multiply zeros like other numbers, wherever they are: what these weights take, every mask takes.
    """
    denoiser = models.denoiser_of(pipe)
    layers = packages.layers(models.family_of(pipe).units(denoiser))
    return Pruned({name: without_smallest(models.linear(denoiser, name), share) for name in layers})


def without_smallest(layer: Layer, share: float) -> State:
    weight, bias = state_of(layer)
    size = weight.float().abs()
    least = size.flatten().kthvalue(max(round(share * weight.numel()), 1)).values
    return State(weight * (size > least), bias)


def clocked(call: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Median wall-clock ms of a call after a warm-up, the GPU's work included, on torch's present threads."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return 1e3 * timer.blocked_autorange(min_run_time=seconds).median


def in_turns(
    turns: Mapping[str, Callable[[], Calls]], rounds: int = ROUNDS, seconds: float = SECONDS
) -> dict[tuple[str, str], list[float]]:
    """Time what takes turns; every other round goes backwards, so that a steady drift affects all alike.

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


@devices.stated_precision(None)
@torch.no_grad()
def latency(
    pipe: Any,
    pruned: Pruned,
    sampling: Sampling,
    zeros: Pruned | None = None,
    prompt: Prompt = PROMPT,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Time of dense and pruned weights for one prompt and for a full batch; nothing else may run.

    One prompt is latency: on a small model it is bound by the overhead of calls, which pruning leaves. A full batch of
    `sampling.batch_size` prompts is bound by arithmetic and memory, which removed heads and neurons lessen.

    Args:
        pipe: the dense pipeline; it is dense again afterwards.
        pruned: of a dense cell no weights at all, which gives the machine's own noise.
        zeros: weights that take turns as well.

    Returns:
        block_ms (of the block in the middle), denoiser_ms, pipeline_ms: 25th, 50th and 75th percentile, pruned, one
        prompt; block_speedup, speedup, pipeline_speedup of block, denoiser and pipeline: the median ratio, and its 25th
        and 75th percentile under block_speedup_quartiles and so on. batch: block and denoiser at full batch, {size,
        block_ms, denoiser_ms, block_speedup, speedup and their quartiles}. threads. zeros: all of that but threads, of
        these weights.
    """
    size = sampling.batch_size
    weights = {"pruned": pruned} | ({"zeros": zeros} if zeros else {})
    with ready(pipe, prompt, sampling, sorted({1, size})) as calls, swapping(pipe, weights) as install:
        timed = {what: calls[1][what] for what in SPEEDUPS}
        if size > 1:
            timed |= {f"batch_{what}": calls[size][what] for what in SPEEDUPS}
        times = in_turns({which: partial(turn, install[which], timed) for which in install}, rounds, seconds)
    whole = {"pipeline": pipeline_of(pipe, prompt, sampling)}
    with swapping(pipe, weights) as install:
        several = {which: partial(turn, install[which], whole) for which in install}
        times |= in_turns(several, min(rounds, PIPELINES), seconds)
    found = {which: of_turn(times, which, size) for which in weights}
    return {"threads": torch.get_num_threads()} | found.pop("pruned") | found


def turn(begin: Callable[[], None], calls: Calls) -> Calls:
    begin()
    return calls


def of_turn(times: Mapping[tuple[str, str], Sequence[float]], which: str, size: int) -> dict[str, Any]:
    """What latency() returns of one of the weights."""
    record = of_rounds(times, which, "", SPEEDUPS | {"pipeline": "pipeline_speedup"})
    return record | {"batch": {"size": size} | of_rounds(times, which, "batch_" if size > 1 else "")}


def of_rounds(
    times: Mapping[tuple[str, str], Sequence[float]], which: str, prefix: str, calls: Mapping[str, str] = SPEEDUPS
) -> dict[str, Any]:
    """Quartiles of the calls' times with these weights, and of their speed-ups over dense, which have these names."""
    found: dict[str, Any] = {}
    for what, speedup in calls.items():
        dense, own = (times[turn, f"{prefix}{what}"] for turn in ("dense", which))
        found |= {f"{what}_ms": quartiles(own)} | named(speedup, ratios(dense, own))
    return found


def named(name: str, found: Sequence[float]) -> dict[str, Any]:
    """Quartiles as a record has them: the median by its name, the other two beside it."""
    low, median, high = found
    return {name: median, f"{name}_quartiles": [low, high]}
