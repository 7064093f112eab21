"""Time of the Hessian's sums: the triangle against the whole product, and on a GPU halves against float32.

    python -m benchmarks.statistics --out benchmarks/statistics.md
    python -m benchmarks.statistics --device cuda --out benchmarks/statistics-cuda.md

A row is one call of `obsdiff.solver.statistics.Hessian.add`, and the whole product of the same inputs in the same
arithmetic.
The error is the largest difference from the sums in float64 over √(Hᵢᵢ Hⱼⱼ).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import tyro
from torch import Tensor

from benchmarks.elimination import seconds
from benchmarks.made import as_typed
from eval.profile.machine import hardware
from obsdiff.devices import require, stated_precision
from obsdiff.solver import products
from obsdiff.solver.statistics import Hessian

TOKENS = {"cpu": 2048, "cuda": 2 * 4096}
COLUMNS = {"cpu": (640, 1536, 2432, 3072, 6144), "cuda": (1536, 2432, 3072, 6144, 12288)}
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16, torch.float16)}


def whole(sums: Tensor, x: Tensor, served: bool) -> None:
    """All of XᵀX in one product."""
    if served:
        torch.addmm(sums, x.T, x, out_dtype=torch.float32, out=sums)
    else:
        x = x.float()
        sums.addmm_(x.T, x)


def error(hessian: Tensor, x: Tensor) -> float:
    """Largest |H − H₆₄| / √(Hᵢᵢ Hⱼⱼ), by block rows."""
    x = x.double()
    scale, largest = x.square().sum(dim=0).sqrt(), 0.0
    for start in range(0, x.shape[1], 1024):
        rows = slice(start, start + 1024)
        off = (hessian[rows] - x[:, rows].T @ x).abs_() / scale[rows, None] / scale
        largest = max(largest, float(off.max()))
    return largest


def rows_of(device: torch.device, repeats: int) -> Iterator[str]:
    """The table, line by line."""
    yield "| inputs | columns | products | whole, ms | triangle, ms | gain | TFLOP/s, the whole's | error |"
    yield "|:--|--:|:--|--:|--:|--:|--:|--:|"
    tokens = TOKENS[device.type]
    for columns in COLUMNS[device.type]:
        drawn = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(0)).to(device)
        for dtype in DTYPES[device.type]:
            x = drawn.to(dtype)
            served = products.served(device, dtype)
            sums = torch.zeros(columns, columns, device=device)
            whole(sums, x, served)
            all_of_it = seconds(partial(whole, sums, x, served), device, repeats)[0]
            del sums
            made = Hessian(columns, device)
            made.add(x[None], 1.0)
            hessian = made.value(device).hessian
            assert hessian is not None
            off = error(hessian / 2, x)
            part = seconds(partial(made.add, x[None], 1.0), device, repeats)[0]
            name, rate = str(dtype).removeprefix("torch."), 2e-12 * tokens * columns**2 / part
            yield (
                f"| {name} | {columns} | {products.way(device.type, dtype, served)} | {1e3 * all_of_it:.2f} "
                f"| {1e3 * part:.2f} | {all_of_it / part:.2f} × | {rate:.2f} | {off:.1e} |"
            )
            del made, x


@stated_precision()
@torch.no_grad()
def main(out: Path = Path("benchmarks/statistics.md"), device: str = "cpu", threads: int = 1, repeats: int = 5) -> None:
    """Write the table.

    Args:
        device: cpu or cuda.
        repeats: of which the fastest counts.
    """
    require(device)
    torch.set_num_threads(threads)
    place = torch.device(device)
    name = hardware(device) + ("" if place.type == "cuda" else f", threads: {threads}")
    lines = [
        f"One call of `Hessian.add` on {TOKENS[place.type]} tokens, {name}, torch {torch.__version__}, fastest of "
        f"{repeats}; error: largest difference from float64 over √(Hᵢᵢ Hⱼⱼ); made by `{as_typed('statistics')}`.",
        "",
    ]
    for line in rows_of(place, repeats):
        lines.append(line)
        print(line, flush=True)
        out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
