"""DSnoT against its description, a row at a time with lists, as its authors' code goes through it."""

from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import registry
from obsdiff.methods import dsnot
from obsdiff.patterns import n_m, unstructured
from obsdiff.statistics import Input

ROWS, COLUMNS, TOKENS = 6, 48, 40


def problem(seed: int, shift: float) -> tuple[torch.Tensor, Input]:
    """A weight, and an input whose mean is `shift` standard deviations from 0, more or less."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(ROWS, COLUMNS, generator=generator)
    x = torch.randn(TOKENS, COLUMNS, generator=generator) * torch.rand(COLUMNS, generator=generator).add(0.2)
    x += shift * torch.randn(COLUMNS, generator=generator)
    return weight, Input(TOKENS, x.mean(dim=0), x.square().sum(dim=0), 2 * x.T @ x)


def reference(weight: list, keep: list, mean: list, variance: list, price: list, multiple: int) -> list:
    """One row, in lists."""
    error = sum(w * m for w, m, k in zip(weight, mean, keep, strict=True) if not k)
    d = [w * m for w, m in zip(weight, mean, strict=True)]
    pruned = sorted((j for j, k in enumerate(keep) if not k), key=lambda j: d[j] / variance[j])
    kept = sorted((j for j, k in enumerate(keep) if k), key=lambda j: price[j])
    first, keep = error > 0, list(keep)
    for _ in range(50):
        if abs(error) <= 0.1 / 2048 or not pruned:
            break
        positive = error > 0
        grown = pruned[-1 if positive else 0]
        if (d[grown] > 0) != positive:
            break
        if multiple > 1:
            partners = [j for j in kept if j // multiple == grown // multiple]
        else:
            partners = [j for j in kept if d[j] < 0] if positive else [j for j in kept if d[j] > 0]
        if not partners:
            break
        after = error + d[partners[0]] - d[grown]
        if multiple > 1 and (after > 0) != first:
            break
        keep[grown], keep[partners[0]] = True, False
        pruned.remove(grown)
        kept.remove(partners[0])
        error = after
    return keep


def started(entry: ModuleType, weight: torch.Tensor, seen: Input, pattern: str) -> tuple[torch.Tensor, torch.Tensor]:
    scores = entry.score(weight, seen, torch.Generator())
    keep = n_m.keep(scores, 0.5, "row", 0, n=2, m=4) if pattern == "2:4" else unstructured.keep(scores, 0.5, "row", 0)
    return scores, keep


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("method", ["dsnot", "dsnot_wanda"])
@given(st.integers(0, 10**6), st.floats(0.0, 2.0))
def test_every_row_is_the_reference(method, pattern, seed, shift):
    entry = registry.load("obsdiff.methods", method)
    weight, seen = problem(seed, shift)
    weight, seen = weight.double(), Input(seen.tokens, seen.mean.double(), seen.squared_norm.double(), seen.hessian)
    scores, keep = started(entry, weight, seen, pattern)
    multiple = 4 if pattern == "2:4" else 1
    found = entry.refine(weight, keep, seen, scores, multiple)
    price = scores if multiple > 1 else weight.abs() * seen.squared_norm.sqrt()
    shared = seen.mean.tolist(), seen.variance.tolist()
    for row in range(ROWS):
        expected = reference(weight[row].tolist(), keep[row].tolist(), *shared, price[row].tolist(), multiple)
        assert found[row].tolist() == expected
    assert torch.equal(found.sum(dim=1), keep.sum(dim=1))
    if multiple > 1:
        assert (found.view(ROWS, -1, 4).sum(dim=2) == 2).all()


def test_rows_do_change_and_rows_without_error_do_not():
    weight, seen = problem(0, 1.0)
    scores, keep = started(dsnot, weight, seen, "unstructured")
    moved = dsnot.refine(weight, keep, seen, scores, 1) != keep
    assert moved.any(dim=1).all()
    centred = Input(seen.tokens, torch.zeros(COLUMNS), seen.squared_norm, seen.hessian)
    assert torch.equal(dsnot.refine(weight, keep, centred, scores, 1), keep)
