"""Time of a CPU's float32 matrix products: torch's own against those that obsdiff takes (obsdiff/onednn.py).

    python -m benchmarks.products --out benchmarks/products.md

`layer` is a layer's call, x Wᵀ + b; `sums` adds a product of blocks of larger matrices to another, as the statistics
and the column sweep do.
"""

from functools import partial
from pathlib import Path

import torch
import tyro

from benchmarks.clock import fastest
from benchmarks.made import as_typed
from eval.profile.machine import processor
from obsdiff import onednn

SHAPES = {
    "layer": ((64, 160, 160), (1024, 160, 640), (4928, 640, 160), (4096, 1536, 1536), (4096, 1536, 6144)),
    "sums": ((1536, 2048, 1536), (6144, 2048, 3072), (1408, 128, 1536), (6016, 128, 12288), (112, 16, 6144)),
}
"""rows, inner, columns: of the zoo's SD3 and of real models"""


@torch.no_grad()
def row_of(kind: str, rows: int, inner: int, columns: int, repeats: int) -> str:
    g = torch.Generator().manual_seed(0)
    drawn = partial(torch.randn, generator=g)
    if kind == "layer":
        x, weight, bias = drawn(rows, inner), drawn(columns, inner), drawn(columns)
        call = partial(torch.nn.functional.linear, x, weight, bias)
    else:
        whole, total = drawn(inner, rows + columns), torch.zeros(rows, rows + columns)
        call = partial(total[:, rows:].addmm_, whole[:, :rows].T, whole[:, rows:])

    times, _ = fastest({"torch": call}, repeats, torch.device("cpu"))
    with onednn.products(onednn.SMALL):
        times |= fastest({"ours": call}, repeats, torch.device("cpu"))[0]
    rate = 2e-9 * rows * inner * columns
    return (
        f"| {kind} | {rows} × {inner} × {columns} | {1e3 * times['torch']:.3g} | {1e3 * times['ours']:.3g} "
        f"| {rate / times['torch']:.0f} | {rate / times['ours']:.0f} | {times['torch'] / times['ours']:.2f}× |"
    )


def main(out: Path = Path("benchmarks/products.md"), threads: int = 1, repeats: int = 20) -> None:
    """Write the table.

    Args:
        repeats: of which the fastest counts.
    """
    torch.set_num_threads(threads)
    why = "oneDNN's" if onednn.faster() else "the same, since MKL has the widest kernels here"
    lines = [
        f"{processor()}, threads: {threads}, torch {torch.__version__}; ours are {why}; fastest of {repeats}; "
        f"made by `{as_typed('products')}`.",
        "",
        "| product | rows × inner × columns | torch's ms | ours ms | torch's GFLOP/s | ours | gain |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, shapes in SHAPES.items():
        for rows, inner, columns in shapes:
            lines.append(row_of(kind, rows, inner, columns, repeats))
            print(lines[-1], flush=True)
            out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
