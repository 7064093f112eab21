"""ADMM's masks and the exact re-solve: least squares in float64, counts, orders of errors."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import patterns, registry
from obsdiff.solver import factors, obs
from obsdiff.solver.admm import admm, inverted
from obsdiff.solver.resolve import damped, resolve
from obsdiff.solver.statistics import Input
from obsdiff.solving import solve_layer
from obsdiff.spec import PruneSpec


def problem(rows: int, columns: int, seed: int, dead: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A dense weight, and a damped Hessian of correlated inputs, `dead` of whose columns are always zero."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
    inputs = torch.randn(3 * columns, columns, generator=generator) @ mix
    inputs[:, :dead] = 0.0
    hessian = 2 * inputs.T @ inputs / len(inputs)
    return torch.randn(rows, columns, generator=generator), damped(hessian, factors.factor(hessian))


def keeper(value: str, sparsity: float = 0.5):
    pattern = patterns.resolve(value)
    entry = registry.load("obsdiff.patterns", pattern.entry)
    amount = sparsity if pattern.sparsity is None else pattern.sparsity
    return lambda scores, start=0: entry.keep(scores, amount, "layer", start, **pattern.arguments)


def error(found: torch.Tensor, weight: torch.Tensor, hessian: torch.Tensor) -> float:
    change = (found - weight).double()
    return float(((change @ hessian.double()) * change).sum())


def optimum(weight: torch.Tensor, hessian: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Row by row in float64."""
    result = torch.zeros_like(weight, dtype=torch.float64)
    right = weight.double() @ hessian.double()
    for row, mask in enumerate(keep):
        at = mask.nonzero()[:, 0]
        result[row, at] = torch.linalg.solve(hessian.double()[at][:, at], right[row, at])
    return result


@given(rows=st.integers(1, 6), columns=st.integers(1, 24), share=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_remaining_weights_are_the_least_squares_optimum_on_their_mask(rows, columns, share, seed):
    weight, hessian = problem(rows, columns, seed)
    keep = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < share
    found, best = resolve(weight, hessian, keep), optimum(weight, hessian, keep)
    assert not found[~keep].any()
    energy = error(torch.zeros_like(weight), weight, hessian)
    assert error(found, weight, hessian) <= error(best, weight, hessian) * (1 + 1e-4) + 1e-5 * energy
    torch.testing.assert_close(found.double(), best, rtol=0.05, atol=0.05)


def test_a_guess_changes_how_long_it_takes_and_not_the_optimum():
    weight, hessian = problem(8, 64, 0)
    keep = keeper("unstructured")(weight.abs())
    guess = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    one, other = resolve(weight, hessian, keep), resolve(weight, hessian, keep, guess)
    assert error(one, weight, hessian) == pytest.approx(error(other, weight, hessian), rel=1e-4)


@pytest.mark.parametrize("value", ["unstructured", "2:4", "1:4", "4:8"])
@pytest.mark.parametrize("seed", range(4))
def test_admm_keeps_the_patterns_counts_and_beats_the_column_sweep(value, seed):
    weight, hessian = problem(32, 64, seed)
    keep = keeper(value)
    start, mask = admm(weight, hessian, keep)
    pattern = patterns.resolve(value)
    kept = 0.5 if pattern.sparsity is None else 1 - pattern.sparsity
    assert int(mask.sum()) == round(kept * weight.numel()) and not start[~mask].any()
    if pattern.sparsity is not None:
        assert (mask.view(-1, pattern.multiple).sum(dim=1) == kept * pattern.multiple).all()
    stride = pattern.multiple if pattern.multiple > 1 else None
    swept = obs.sweep(weight, factors.factor(hessian, 1e-9), keep, 16, stride, stay=pattern.stay)
    found = resolve(weight, hessian, mask, start)
    assert error(found, weight, hessian) < error(swept.weight, weight, hessian)
    assert error(resolve(weight, hessian, swept.keep), weight, hessian) <= error(swept.weight, weight, hessian)


def test_admm_finds_a_mask_near_the_best_of_all():
    """Of one row, all masks tried; the column sweep's is farther away."""
    gaps, swept = [], []
    for seed in range(8):
        weight, hessian = problem(1, 10, seed)
        masks = torch.zeros(252, 10, dtype=torch.bool)
        for i, columns in enumerate(combinations(range(10), 5)):
            masks[i, list(columns)] = True
        best = min(error(optimum(weight, hessian, m[None]), weight, hessian) for m in masks)
        start, mask = admm(weight, hessian, keeper("unstructured"))
        gaps.append(error(resolve(weight, hessian, mask, start), weight, hessian) / best)
        other = obs.sweep(weight, factors.factor(hessian, 1e-9), keeper("unstructured"), 10).keep
        swept.append(error(resolve(weight, hessian, other), weight, hessian) / best)
    assert sorted(gaps)[4] < 1.1 and sum(gaps) < sum(swept)


def test_inputs_that_are_always_zero_cost_nothing():
    weight, hessian = problem(4, 16, 0, dead=3)
    start, mask = admm(weight.masked_fill(torch.arange(16) < 3, 0.0), hessian, keeper("unstructured"))
    assert not mask[:, :3].any() and torch.isfinite(start).all()


def test_inverse_of_a_damped_matrix():
    _, hessian = problem(1, 40, 0)
    scale = hessian.diagonal().sqrt()
    matrix = hessian / scale / scale[:, None]
    product = inverted(matrix, 0.1) @ (matrix + 0.1 * torch.eye(40))
    torch.testing.assert_close(product, torch.eye(40), atol=1e-4, rtol=0)


@given(seed=st.integers(0, 99), value=st.sampled_from(["unstructured", "2:4"]), alike=st.booleans())
def test_the_better_of_two_is_never_worse_than_either(seed, value, alike):
    """Also where inputs are unrelated and alike, and the sweep is hard to beat."""
    weight, hessian = problem(6, 16, seed)
    hessian = 2.0 * torch.eye(16) if alike else hessian
    errors = {}
    for solver in ("sweep", "admm", "best"):
        spec = PruneSpec(method="alps", pattern=value, solver=solver, resolve=True, block_size=8)
        input = Input(1.0, torch.zeros(16), hessian.diagonal() / 2, hessian)
        method = registry.load("obsdiff.methods", "alps")
        found = solve_layer(weight, input, method, spec, 0.5, torch.Generator())
        assert int(found.keep.sum()) == weight.numel() // 2
        errors[solver] = error(found.weight, weight, damped(hessian, input.factor))
    assert errors["best"] <= min(errors["sweep"], errors["admm"]) * (1 + 1e-4)


@given(seed=st.integers(0, 99), value=st.sampled_from(["unstructured", "2:4"]))
def test_weights_of_rows_change_masks_only_where_rows_compete(seed, value):
    weight, hessian = problem(6, 16, seed)
    input = Input(1.0, torch.zeros(16), hessian.diagonal() / 2, hessian)
    method, spec = registry.load("obsdiff.methods", "alps"), PruneSpec(method="alps", pattern=value)
    rows = torch.tensor([1e-4, 1.0, 1.0, 1.0, 1.0, 3.0])
    plain = solve_layer(weight, input, method, spec, 0.5, torch.Generator())
    found = solve_layer(weight, input, method, spec, 0.5, torch.Generator(), rows)
    scaled = solve_layer(weight, input, method, spec, 0.5, torch.Generator(), 4 * rows)
    assert torch.equal(found.keep, scaled.keep)
    assert int(found.keep.sum()) == int(plain.keep.sum())
    if value == "2:4":
        assert torch.equal(found.keep, plain.keep)
        torch.testing.assert_close(found.weight, plain.weight, rtol=1e-3, atol=1e-3)
    else:
        assert int(found.keep[0].sum()) < int(plain.keep[0].sum()) or not plain.keep[0].any()
