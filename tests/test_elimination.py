"""Elimination of groups: the optimum of what stays, the cheapest first, and in blocks what it is one by one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretended import CUDA, machine

from benchmarks import elimination as benchmark
from benchmarks import plain_elimination
from obsdiff.solver import factors, obs
from obsdiff.solver.elimination import Problem, eliminate, group_costs
from obsdiff.solver.ranking import levelled

ROWS, GROUPS, SIZE = 5, 6, 3
COLUMNS = GROUPS * SIZE
seeds = st.integers(0, 2**31)


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(80, COLUMNS, generator=g) @ (torch.randn(COLUMNS, COLUMNS, generator=g) / 4 + torch.eye(COLUMNS))
    return torch.randn(ROWS, COLUMNS, generator=g), x.T @ x / 40


def damped(hessian: torch.Tensor) -> torch.Tensor:
    return hessian.double() + 0.01 * hessian.diagonal().mean().double() * torch.eye(len(hessian), dtype=torch.float64)


def optimum(weight: torch.Tensor, hessian: torch.Tensor, stays: torch.Tensor) -> torch.Tensor:
    """The least-squares weights on the columns that stay."""
    h, w = damped(hessian), torch.zeros_like(weight, dtype=torch.float64)
    w[:, stays] = torch.linalg.solve(h[stays][:, stays], (weight.double() @ h[:, stays]).T).T
    return w


@given(seeds, st.integers(0, GROUPS - 1), st.sampled_from([1, SIZE]))
def test_elimination_ends_in_the_least_squares_optimum(seed, count, size):
    weight, hessian = problem(seed)
    groups = COLUMNS // size
    (pruned,), kept = eliminate([Problem(weight, factors.factor(hessian))], size, groups, count)
    assert len(kept) == groups - count and kept.tolist() == sorted(set(kept.tolist()))
    stays = torch.zeros(groups, dtype=torch.bool)
    stays[kept] = True
    stays = stays.repeat_interleave(size)
    assert not pruned[:, ~stays].any()
    torch.testing.assert_close(pruned.double(), optimum(weight, hessian, stays), rtol=1e-3, atol=1e-3)
    masked = weight * stays
    whole = damped(hessian).float()
    assert obs.layer_error(weight, pruned, whole) <= obs.layer_error(weight, masked, whole) + 1e-6


@given(seeds)
def test_first_group_to_go_is_the_cheapest_of_all(seed):
    weight, hessian = problem(seed)
    _, kept = eliminate([Problem(weight, factors.factor(hessian))], SIZE, GROUPS, 1)
    costs = []
    for group in range(GROUPS):
        stays = torch.ones(COLUMNS, dtype=torch.bool)
        stays[group * SIZE : (group + 1) * SIZE] = False
        delta = optimum(weight, hessian, stays) - weight.double()
        costs.append(float(((delta @ damped(hessian)) * delta).sum()))
    assert set(range(GROUPS)) - set(kept.tolist()) == {min(range(GROUPS), key=costs.__getitem__)}
    expected = group_costs(weight.double(), torch.linalg.inv(damped(hessian)), 0, SIZE, GROUPS)
    assert expected.tolist() == pytest.approx(costs, rel=1e-4)


@given(seeds, st.integers(1, GROUPS - 1))
def test_streams_lose_the_same_groups_and_their_order_does_not_matter(seed, count):
    problems = [Problem(w, factors.factor(h)) for w, h in (problem(seed), problem(seed + 1))]
    _, kept = eliminate(problems, SIZE, GROUPS, count)
    _, swapped = eliminate(problems[::-1], SIZE, GROUPS, count)
    assert torch.equal(kept, swapped)
    _, alike = eliminate([problems[0]] * 2, SIZE, GROUPS, count)
    _, alone = eliminate(problems[:1], SIZE, GROUPS, count)
    assert torch.equal(alike, alone)


@given(seeds, st.integers(0, 3), st.integers(1, GROUPS - 1))
def test_columns_beside_the_groups_compensate_and_stay(seed, first, count):
    """The groups may begin anywhere in the consumer, as in a projection that reads attention and MLP together."""
    weight, hessian = problem(seed)
    groups = (COLUMNS - first) // SIZE - 1
    count = min(count, groups - 1)
    (pruned,), kept = eliminate([Problem(weight, factors.factor(hessian), first)], SIZE, groups, count)
    stays = torch.ones(COLUMNS, dtype=torch.bool)
    for group in set(range(groups)) - set(kept.tolist()):
        stays[first + group * SIZE : first + (group + 1) * SIZE] = False
    torch.testing.assert_close(pruned.double(), optimum(weight, hessian, stays), rtol=1e-3, atol=1e-3)


@given(seeds, st.integers(0, GROUPS - 1))
def test_without_compensation_nothing_moves(seed, count):
    weight, hessian = problem(seed)
    (pruned,), kept = eliminate([Problem(weight, factors.factor(hessian))], SIZE, GROUPS, count, compensate=False)
    stays = torch.zeros(GROUPS, dtype=torch.bool)
    stays[kept] = True
    assert torch.equal(pruned, weight * stays.repeat_interleave(SIZE))


def factor_of(upper: torch.Tensor) -> factors.Factor:
    return replace(factors.factor(torch.eye(len(upper))), upper=upper)


@st.composite
def sites(draw):
    """Problems of one site with what makes elimination hard, and how to eliminate."""
    size, groups = draw(st.sampled_from([1, 2, 8])), draw(st.integers(2, 7))
    kind = draw(st.sampled_from(["ordinary", "dead", "tied", "ill-conditioned", "opposed"]))
    g, made = torch.Generator().manual_seed(draw(seeds)), []
    for first in draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)):
        columns = first + groups * size + draw(st.integers(0, 2))
        weight = torch.randn(ROWS, columns, generator=g)
        x = torch.randn(3 * columns, columns, generator=g) @ (
            torch.randn(columns, columns, generator=g) + torch.eye(columns)
        )
        if kind == "dead":
            x[:, torch.rand(columns, generator=g) < 0.4] = 0.0
        if kind == "ill-conditioned":
            x = torch.randn(3 * columns, 3, generator=g) @ torch.randn(3, columns, generator=g) + 1e-3 * x
        if kind == "opposed" and columns > 2:
            # what one column adds the next takes away: the cost of the second falls to nothing with the first
            x[:, 1::2] = x[:, 0 : 2 * (columns // 2) : 2]
            weight[:, 1::2] = -weight[:, 0 : 2 * (columns // 2) : 2]
        factor = factors.factor(x.T @ x / len(x), draw(st.sampled_from([1e-2, 1e-4])))
        if kind == "tied":  # by whole numbers, which rounding leaves alone
            factor = factor_of(torch.eye(columns))
            weight = torch.randint(-1, 2, (ROWS, columns), generator=g).float()
        made.append(Problem(weight, factor, first))
    return made, size, groups, draw(st.integers(0, groups - 1)), draw(st.sampled_from([1, 2, 3, 16, 128]))


@given(sites())
def test_blocks_remove_the_same_groups_as_one_by_one(site):
    problems, size, groups, count, block = site
    weights, kept = eliminate(problems, size, groups, count, block=block)
    expected, stay = plain_elimination.eliminate(problems, size, groups, count)
    assert torch.equal(kept, stay)
    for made, plain in zip(weights, expected, strict=True):
        torch.testing.assert_close(made, plain, rtol=1e-5, atol=1e-5)
        assert torch.equal(made == 0, plain == 0)


@given(sites())
def test_without_compensation_the_groups_are_the_plain_ones(site):
    problems, size, groups, count, _ = site
    weights, kept = eliminate(problems, size, groups, count, compensate=False)
    expected, stay = plain_elimination.eliminate(problems, size, groups, count, compensate=False)
    assert torch.equal(kept, stay) and all(map(torch.equal, weights, expected))


@pytest.mark.parametrize("streams", [1, 2])
def test_of_equal_costs_the_first_goes_whatever_rounding_says(streams):
    problems = [Problem(torch.ones(ROWS, 40), factor_of(torch.eye(40)))] * streams
    _, kept = eliminate(problems, 2, 20, 7, block=4)
    assert kept.tolist() == list(range(7, 20))
    noisy = torch.tensor([3.0, 1.0, 1.0 + 1e-15, 3.0 - 1e-15, 2.0], dtype=torch.float64)
    assert levelled(noisy).argsort(stable=True).tolist() == [1, 2, 4, 0, 3]


def test_many_columns_in_blocks_as_they_are_used():
    """Long enough for several blocks of the default size."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 400, generator=g) + torch.randn(600, 8, generator=g) @ torch.randn(8, 400, generator=g)
    problems = [Problem(torch.randn(16, 400, generator=g), factors.factor(x.T @ x / 300))]
    (weight,), kept = eliminate(problems, 1, 400, 300)
    (expected,), stay = plain_elimination.eliminate(problems, 1, 400, 300)
    assert torch.equal(kept, stay)
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, SIZE])
def test_an_inverse_that_is_not_positive_definite_is_an_error(size):
    broken = factor_of(torch.zeros(COLUMNS, COLUMNS))
    with pytest.raises(factors.FactorisationError, match="not positive definite"):
        eliminate([Problem(torch.ones(ROWS, COLUMNS), broken)], size, COLUMNS // size, 2)


@pytest.mark.parametrize("size", [1, SIZE])
def test_a_gpu_is_waited_for_once_a_block(size):
    weight, hessian = problem(1)
    groups, count = COLUMNS // size, COLUMNS // size - 1
    expected, stay = eliminate([Problem(weight, factors.factor(hessian))], size, groups, count, block=2 * size)
    with machine() as gpu:
        factor = factors.factor(hessian.to(CUDA))
        here, before = Problem(weight.to(CUDA), factor), gpu.waits
        weights, kept = eliminate([here], size, groups, count, block=2 * size)
        assert gpu.waits - before == -(-count // 2)
        assert weights[0].device == kept.device == CUDA
        torch.testing.assert_close(weights[0].cpu(), expected[0])
        assert torch.equal(kept.cpu(), stay)


@pytest.mark.parametrize("size", [1, SIZE])
def test_the_benchmark_compares_blocks_with_the_plain_elimination(size, monkeypatch):
    case = benchmark.Case("some", ROWS, 2 + 12 * size, size, 2, 12, 4, 3)
    monkeypatch.setattr(benchmark, "CASES", (case,))
    monkeypatch.setattr(benchmark, "LARGE", (case,))
    monkeypatch.setattr(benchmark, "rate", lambda device: 1e9)
    lines = list(benchmark.table(torch.device("cpu"), 1))
    with machine():
        lines += list(benchmark.table(CUDA, 1))
    assert sum("| the same, 3 |" in line for line in lines) == 3
