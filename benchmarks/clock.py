"""Times of single calls, the GPU's work included."""

import time
from collections.abc import Callable
from typing import Any

import torch

from obsdiff import devices


def fastest(
    calls: dict[str, Callable[[], Any]], repeats: int, device: torch.device
) -> tuple[dict[str, float], dict[str, Any]]:
    """Fastest seconds of every call, interleaved, and what each returned last."""
    times = dict.fromkeys(calls, float("inf"))
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, call in calls.items():
            results.pop(name, None)
            devices.synchronize(device)
            begun = time.perf_counter()
            results[name] = call()
            devices.synchronize(device)
            times[name] = min(times[name], time.perf_counter() - begun)
    return times, results
