"""Time of the elimination of heads and neurons against the floor and the plain one; a table of benchmarks.structured.

The floor is the multiply-adds of the two matrices that every removal changes, size · c · (c + rows) a group, at the
float64 rate of one large product on the same machine. The plain elimination does a few removals and is extrapolated:
its time is the same for each.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import plain_elimination
from benchmarks.clock import fastest
from obsdiff.solver import factors
from obsdiff.solver.elimination import Problem, eliminate


class Case(NamedTuple):
    name: str
    rows: int
    columns: int
    size: int
    first: int
    groups: int
    removed: int
    plain: int
    """removals of the plain elimination"""


CASES = (
    Case("7 of 24 heads of 64", 1536, 1536, 64, 0, 24, 7, 7),
    Case("922 of 3072 neurons", 1536, 3072, 1, 0, 3072, 922, 24),
    Case("1843 of 6144 neurons", 1536, 6144, 1, 0, 6144, 1843, 8),
)
LARGE = (
    Case("11 of 38 heads of 64", 2432, 2432, 64, 0, 38, 11, 11),
    Case("2918 of 9728 neurons", 2432, 9728, 1, 0, 9728, 2918, 24),
    Case("3686 of 12288 neurons", 3072, 12288, 1, 0, 12288, 3686, 24),
    Case("3686 of 12288 neurons behind 3072 columns", 3072, 15360, 1, 3072, 12288, 3686, 24),
)
"""of Stable Diffusion 3.5 large and Flux, for a GPU"""


def problem(case: Case, device: torch.device) -> Problem:
    """A layer whose inputs are correlated, the same on every device."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(case.columns // 4, case.columns, generator=g).to(device)
    x += (torch.randn(len(x), 64, generator=g) @ torch.randn(64, case.columns, generator=g)).to(device)
    hessian = x.T @ x / len(x)
    hessian.diagonal().add_(1.0)
    weight = torch.randn(case.rows, case.columns, generator=g).to(device)
    return Problem(weight, factors.factor(hessian), case.first)


def seconds(call: Callable[[], Any], device: torch.device, repeats: int = 1) -> tuple[float, Any]:
    """Of the fastest call, and what the last one returned."""
    times, results = fastest({"": call}, repeats, device)
    return times[""], results[""]


def rate(device: torch.device, side: int = 2048) -> float:
    """Multiply-adds a second of one float64 product."""
    a = torch.randn(side, side, dtype=torch.float64, device=device)
    a @ a
    return side**3 / seconds(lambda: a @ a, device, 5)[0]


def row(case: Case, device: torch.device, repeats: int) -> str:
    """One line of the table."""
    layer = problem(case, device)

    def run(solve: Callable[..., tuple[list[Tensor], Tensor]], count: int) -> Callable[[], Any]:
        return lambda: solve([layer], case.size, case.groups, count)

    floor = case.removed * case.size * case.columns * (case.columns + case.rows) / rate(device)
    run(eliminate, 1)()
    blocked = seconds(run(eliminate, case.removed), device, repeats)[0]
    (made,), kept = run(eliminate, case.plain)()
    some, ((plain,), stay) = seconds(run(plain_elimination.eliminate, case.plain), device)
    if case.plain == case.removed:
        whole = some
    else:
        begun = seconds(run(plain_elimination.eliminate, 1), device)[0]
        whole = begun + (some - begun) / (case.plain - 1) * (case.removed - 1)
    same = "the same" if torch.equal(kept, stay) else "other ones"
    off = float((made - plain).abs().max() / plain.abs().max())
    return (
        f"| {case.name} | {case.rows} × {case.columns} | {floor:.2f} | {blocked:.2f} | {blocked / floor:.1f} × "
        f"| {whole:.1f}{'' if case.plain == case.removed else ' *'} | {whole / blocked:.1f} × "
        f"| {same}, {case.plain} | {off:.0e} |"
    )


def table(device: torch.device, repeats: int) -> Iterator[str]:
    """The table's lines, one by one."""
    yield (
        "| removed | rows × columns | floor, s | in blocks, s | of the floor | plain, s | gain | groups, of removals "
        "| weights differ by |"
    )
    yield "|:--|:--|--:|--:|--:|--:|--:|:--|--:|"
    for case in CASES + (LARGE if device.type == "cuda" else ()):
        yield row(case, device, repeats)
    yield ""
    yield "\\* extrapolated from the removals of the column beside, whose groups and weights are compared."
