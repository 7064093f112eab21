"""The column sweep and its selection against the plain solver of the benchmarks, on cases of every shape."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import reference, solver
from obsdiff.errors import SpecError
from obsdiff.patterns import n_m, unstructured
from obsdiff.solver import factors, obs

seeds = st.integers(0, 2**31)
DAMPING = 0.01


def problem(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * columns, columns, generator=g) + torch.randn(2 * columns, 1, generator=g)
    return torch.randn(rows, columns, generator=g), x.T @ x / columns


def n_m_select(n: int, m: int):
    return lambda scores, start: n_m.keep(scores, 1 - n / m, "row", start, n=n, m=m)


def select(sparsity: float):
    return lambda scores, start: unstructured.keep(scores, sparsity, "block", start)


def plain_select(sparsity: float):
    return lambda scores, start: reference.unstructured(scores, sparsity, start)


@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 70),
    block=st.sampled_from([1, 5, 16, 32, 50, 128]),
    sparsity=st.sampled_from([0.0, 0.2, 0.5, 0.9, 0.99]),
    seed=seeds,
)
def test_sweep_of_any_shape_is_the_plain_one(rows, columns, block, sparsity, seed):
    weight, hessian = problem(rows, columns, seed)
    factor, before = factors.factor(hessian, DAMPING), weight.clone()
    found = obs.sweep(weight, factor, select(sparsity), block)
    pruned, keep = reference.sweep(weight, factor.upper, plain_select(sparsity), block)
    assert torch.equal(weight, before) and found.weight.is_contiguous() and found.keep.is_contiguous()
    assert (found.keep == keep).float().mean() >= 0.99
    if torch.equal(found.keep, keep):
        torch.testing.assert_close(found.weight, pruned, rtol=1e-3, atol=1e-4)
    assert found.weight.masked_select(~found.keep).count_nonzero() == 0
    energy = obs.energy(weight, hessian)
    assert found.error / energy == pytest.approx(obs.layer_error(weight, found.weight, hessian), rel=5e-5, abs=1e-9)


@given(
    rows=st.integers(1, 12),
    groups=st.integers(1, 24),
    nm=st.sampled_from([(2, 4), (1, 3), (4, 8), (5, 24), (1, 2)]),
    block=st.sampled_from([1, 24, 48]),
    seed=seeds,
)
def test_n_m_sweep_of_any_shape_is_the_plain_one(rows, groups, nm, block, seed):
    n, m = nm
    weight, hessian = problem(rows, groups * m, seed)
    factor = factors.factor(hessian, DAMPING)
    found = obs.sweep(weight, factor, n_m_select(n, m), block, m)
    block = obs.multiple(block, m)
    pruned, keep = reference.sweep(weight, factor.upper, lambda s, _: reference.n_m(s, n, m), block, m)
    assert (found.keep.view(rows, groups, m).sum(dim=2) == n).all()
    if torch.equal(found.keep, keep):
        torch.testing.assert_close(found.weight, pruned, rtol=1e-3, atol=1e-4)
    assert (found.keep == keep).float().mean() >= 0.98


@pytest.mark.parametrize("stride", [None, 4])
def test_weights_of_any_layout_and_dead_columns_give_the_same(stride):
    """Transposed and strided weights are left as they are; columns without input cost nothing, a layer of them too."""
    weight, hessian = problem(24, 40, 0)
    chosen = n_m_select(2, 4) if stride else select(0.5)
    factor = factors.factor(hessian)
    expected = obs.sweep(weight, factor, chosen, 16, stride)
    wide = torch.full((24, 80), 7.0)
    wide[:, ::2] = weight
    for other in (weight.T.contiguous().T, wide[:, ::2]):
        found = obs.sweep(other, factor, chosen, 16, stride)
        assert torch.equal(found.weight, expected.weight) and torch.equal(found.keep, expected.keep)
        assert found.error == pytest.approx(expected.error, rel=1e-6) and torch.equal(other, weight)
    hessian[:8], hessian[:, :8] = 0, 0
    factor = factors.factor(hessian)
    found = obs.sweep(weight, factor, chosen, 16, stride)
    assert found.weight[:, :8].count_nonzero() == 0 and torch.isfinite(found.weight).all()
    assert found.error == pytest.approx(obs.energy(found.weight - weight, hessian), rel=5e-5)
    none = obs.sweep(weight, factors.factor(torch.zeros(40, 40)), chosen, 16, stride)
    assert none.weight.count_nonzero() == 0 and none.error == 0
    assert int((~none.keep).sum()) == 24 * 20


@pytest.mark.parametrize(("damping", "tokens"), [(1e-4, 64), (1e4, 64), (0.01, 1)])
def test_error_is_told_only_where_four_digits_of_it_are_known(damping, tokens):
    """Inputs of rank 1, or a damping far above them: nearly all that a removal costs is the damping's."""
    g = torch.Generator().manual_seed(0)
    weight, x = torch.randn(8, 32, generator=g), torch.randn(tokens, 32, generator=g)
    factor = factors.factor(x.T @ x, damping)
    for chosen in (select(0.5), lambda scores, start: torch.arange(32).expand(8, -1) >= 1):
        found = obs.sweep(weight, factor, chosen, 32)
        exact = float(((found.weight - weight).double() @ x.T.double()).square().sum())
        cost = exact + factor.ridge * float((found.weight - weight).square().sum())
        assert (found.error is None) == (exact < obs.EXACT * cost)
        if found.error is not None:
            assert found.error == pytest.approx(exact, rel=5e-5)
    assert obs.sweep(weight, factor, select(0.5), 32, compensate=False).error is None


@given(
    rows=st.integers(1, 9), columns=st.integers(1, 9), levels=st.integers(1, 4), sparsity=st.floats(0, 0.99), seed=seeds
)
def test_selection_is_the_stable_sorts_bit_for_bit(rows, columns, levels, sparsity, seed):
    """Ties everywhere, either layout, and the sort that a GPU makes instead."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (rows, columns), generator=g).float()
    scores = scores * torch.randint(-1, 2, (1,), generator=g)  # all zero too, and of both signs
    for start in (0, 3):
        expected = reference.unstructured(scores, sparsity, start)
        for layout in (scores, scores.T.contiguous().T):
            assert torch.equal(unstructured.keep(layout, sparsity, "block", start), expected)
        removed = int((~expected).sum())
        assert torch.equal(~unstructured.sorted_lowest(scores.view(1, -1), removed).view_as(scores), expected)
    by_row = reference.by_row(scores, sparsity)
    counts = (~by_row).sum(dim=1)
    assert torch.equal(unstructured.keep(scores, sparsity, "row"), by_row)
    assert torch.equal(unstructured.keep(scores.T.contiguous().T, sparsity, "row"), by_row)
    assert torch.equal(~unstructured.sorted_lowest(scores, counts[:, None]), by_row)


@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 5),
    nm=st.sampled_from([(2, 4), (4, 8), (1, 4), (1, 2), (7, 9), (150, 300)]),
    levels=st.integers(1, 5),
    seed=seeds,
)
def test_n_m_selection_is_the_stable_sorts_bit_for_bit(rows, groups, nm, levels, seed):
    n, m = nm
    scores = torch.randint(levels, (rows, groups * m), generator=torch.Generator().manual_seed(seed)).float()
    for layout in (scores, scores.T.contiguous().T):
        assert torch.equal(n_m.keep(layout, 1 - n / m, "row", n=n, m=m), reference.n_m(scores, n, m))


@given(st.integers(1, 700), seeds)
def test_factor_is_as_exact_as_float32_tells(columns, seed):
    """Nearer to float64's than the plain factor, whose two factorisations round."""
    _, hessian = problem(1, columns, seed)
    found = factors.factor(hessian, DAMPING)
    exact = reference.factor(hessian.double(), DAMPING)
    off, plain = ((u - exact).norm() / exact.norm() for u in (found.upper, reference.factor(hessian, DAMPING)))
    assert off < 1e-5 and (off <= plain or columns < 16)
    assert found.upper.tril(-1).count_nonzero() == 0
    assert found.ridge == pytest.approx(DAMPING * float(hessian.diagonal().mean()), rel=1e-6)


@given(st.integers(1, 9), st.integers(1, 1100), seeds)
def test_energy_is_the_quadratic_form(rows, columns, seed):
    g = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(rows, columns, generator=g), torch.randn(5, columns, generator=g)
    assert obs.energy(weight, x.T @ x) == pytest.approx(float((weight @ x.T).double().square().sum()), rel=1e-4)


def test_benchmark_compares_with_the_plain_solver():
    records = solver.measure(48, 64, "cpu", repeats=1)
    assert [r["pattern"] for r in records] == list(solver.PATTERNS)
    for r in records:
        assert min(r["same"], r["exact"], r["plain_exact"]) > 0.99
        assert r["error"] == pytest.approx(r["plain_error"], rel=0.05)
    assert solver.markdown(records, "about").count("\n| 48 × 64 |") == 2
    assert solver.shape_of("6144x1536") == (6144, 1536)
    for bad in ("6144", "0x4", "4x6", "axb"):
        with pytest.raises(SpecError, match=r"shapes: .*ROWSxCOLUMNS"):
            solver.shape_of(bad)
