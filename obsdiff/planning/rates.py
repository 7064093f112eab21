"""How fast devices multiply matrices: what an estimate of time is told, measured or looked up."""

import re
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from obsdiff import devices
from obsdiff.errors import SpecError

if TYPE_CHECKING:
    import torch

TERA = 1e12


@dataclass(frozen=True)
class Rate:
    """FLOP/s of dense matrix products at best, 2 a multiply-add.

    Attributes:
        name: as for `--rate`.
        model: in the dtype that the model is loaded in.
        half: of bfloat16 or float16 with sums in float32.
        single, double: of float32 without TF32, and of float64.
        origin: where the figures are from.
    """

    name: str
    model: float
    half: float
    single: float
    double: float
    origin: str


# TFLOP/s of half, float32, float64
DEVICES: dict[str, tuple[float, float, float, str]] = {
    "h100": (989, 67, 67, "NVIDIA's data sheet of the H100 SXM, without sparsity; float64 on tensor cores"),
    "h200": (989, 67, 67, "NVIDIA's data sheet of the H200 SXM, without sparsity; float64 on tensor cores"),
    "a100": (312, 19.5, 19.5, "NVIDIA's data sheet of the A100, without sparsity; float64 on tensor cores"),
    "l40s": (362, 91.6, 1.4, "NVIDIA's data sheet of the L40S, without sparsity"),
    "rtx4090": (165, 82.6, 1.3, "NVIDIA's Ada architecture paper, sums in float32, without sparsity"),
    "cpu": (0.9, 0.18, 0.09, "2 cores of a Xeon with AVX-512 and AMX, rounded; `here` measures yours"),
}
NUMBER = r"(\d+(?:\.\d+)?(?:e\d+)?)\s*(?:TFLOPS|TFLOP/s|TFLOPs)?"
SIDES, SECONDS = (512, 2048), 0.2


def check(text: str | None) -> None:
    """Raise SpecError where this is neither a device, a number of TFLOP/s, nor `here`."""
    if text is None or text.lower() in DEVICES or text == "here":
        return
    number = re.fullmatch(NUMBER, text, re.IGNORECASE)
    if not number or float(number[1]) <= 0:
        raise SpecError(
            f"rate: {text!r} is not a number of TFLOP/s above 0, such as 300TFLOPS, not 'here' (measured), and not a "
            f"device ({', '.join(DEVICES)})"
        )


def rate_of(text: str | None, dtype: str, device: str) -> Rate:
    """The rate that a text names.

    Args:
        text: as check(); where it is left out, `cpu` for a CPU and `a100` for a GPU.
        dtype: of the model, as Source.dtype.
        device: as Source.device; `here` measures it.

    Raises:
        SpecError: it names none, or `here` has no such device.
    """
    check(text)
    text = (text or ("cpu" if device == "cpu" else "a100")).lower()
    if text == "here":
        return measured(dtype, device)
    if text in DEVICES:
        *figures, origin = DEVICES[text]
        half, single, double = (float(figure) * TERA for figure in figures)
        return Rate(text, single if dtype == "float32" else half, half, single, double, origin)
    number = re.fullmatch(NUMBER, text, re.IGNORECASE)
    assert number
    given = float(number[1]) * TERA
    return Rate(f"{float(number[1]):g} TFLOP/s", given, given, given, given, "as given, for products of every dtype")


@cache
def measured(dtype: str, device: str) -> Rate:
    """Of the fastest of the products that a fifth of a second has room for, of each dtype that a run uses."""
    import torch

    devices.require(device)
    where = torch.device(device)
    own = getattr(torch, dtype)
    half = torch.bfloat16 if own == torch.float32 and where.type == "cuda" else own  # a CPU is not asked for it
    with devices.stated_precision():
        found = {kind: fastest(kind, where) for kind in {half, own, torch.float32, torch.float64}}
    threads = f", threads: {torch.get_num_threads()}" if where.type == "cpu" else ""
    origin = f"products of up to {SIDES[-1]}² measured on this machine's {device}{threads}"
    return Rate("here", found[own], found[half], found[torch.float32], found[torch.float64], origin)


def fastest(kind: "torch.dtype", where: "torch.device") -> float:
    """FLOP/s of the fastest product of a dtype; smaller ones where a large one takes too long."""
    import torch

    best = 0.0
    for side in SIDES:
        x = torch.ones(side, side, dtype=kind, device=where)
        torch.mm(x, x)
        shortest, begun = float("inf"), time.perf_counter()
        while time.perf_counter() - begun < SECONDS:
            devices.synchronize(where)
            start = time.perf_counter()
            torch.mm(x, x)
            devices.synchronize(where)
            shortest = min(shortest, time.perf_counter() - start)
        best = max(best, 2 * side**3 / shortest)
        if shortest > SECONDS / 64:  # the next one takes 64 times as long
            break
    return best
