"""Laws of the column sweep, against a naive float64 Optimal Brain Surgeon."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import PruneSpec, registry
from obsdiff.patterns import n_m, unstructured
from obsdiff.solver import factors, obs
from obsdiff.solver.statistics import Input
from obsdiff.solving import solve_layer

ROWS, COLUMNS = 6, 16
seeds = st.integers(0, 2**31)
sparsities = st.sampled_from([0.1, 0.3, 0.5, 0.75, 0.9])
blocks = st.sampled_from([1, 3, 8, 16, 128])


def problem(seed: int, tokens: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(COLUMNS, COLUMNS, generator=g) / 4 + torch.eye(COLUMNS)
    x = torch.randn(tokens, COLUMNS, generator=g) @ mix
    return torch.randn(ROWS, COLUMNS, generator=g), x.T @ x * 2 / tokens, x


def select(sparsity: float, group: str = "block"):
    return lambda scores, start: unstructured.keep(scores, sparsity, group, start)


def naive(weight: torch.Tensor, hessian: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """OBS with the mask given: column by column, a fresh inverse over the columns not yet passed (float64)."""
    w, h = weight.double().clone(), hessian.double()
    for q in range(w.shape[1]):
        inverse = torch.linalg.inv(h[q:, q:])
        change = torch.where(keep[:, q], torch.zeros_like(w[:, q]), w[:, q]) / inverse[0, 0]
        w[:, q:] -= torch.outer(change, inverse[0])
    return w * keep


@given(seeds, sparsities, blocks)
def test_sweep_is_naive_obs(seed, sparsity, block):
    weight, hessian, _ = problem(seed)
    factor = factors.factor(hessian, 0.01)
    pruned, keep, _ = obs.sweep(weight, factor, select(sparsity), block)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(COLUMNS)
    torch.testing.assert_close(pruned.double(), naive(weight, damped, keep), rtol=1e-3, atol=1e-3)


@given(seeds)
def test_saliency_is_the_error_that_a_removal_costs(seed):
    """Removing one weight and compensating all others costs w²/[H⁻¹]qq: the least-squares optimum."""
    weight, hessian, _ = problem(seed)
    factor = factors.factor(hessian, 0.01)
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(COLUMNS)
    pruned, _, _ = obs.sweep(weight, factor, lambda s, start: torch.arange(COLUMNS).expand(ROWS, -1) != 0)
    delta = pruned - weight
    cost = ((delta @ hessian) * delta).sum(dim=1)
    expected = obs.saliency(weight[:, :1], factor, slice(0, 1))[:, 0]
    torch.testing.assert_close(cost, expected, rtol=1e-2, atol=1e-4)
    rest = torch.linalg.lstsq(hessian[1:, 1:], -(delta[:, :1] @ hessian[:1, 1:]).T).solution.T
    torch.testing.assert_close(delta[:, 1:], rest, rtol=1e-2, atol=1e-3)


@given(seeds, sparsities, st.floats(0.01, 100))
def test_scaling_all_alphas_changes_nothing(seed, sparsity, scale):
    weight, hessian, _ = problem(seed)
    one, other = (obs.sweep(weight, factors.factor(h, 0.01), select(sparsity), 8) for h in (hessian, hessian * scale))
    assert torch.equal(one[1], other[1])
    torch.testing.assert_close(one[0], other[0], rtol=1e-3, atol=1e-4)


@given(seeds, sparsities, st.floats(0.1, 10))
def test_identity_hessian_is_magnitude(seed, sparsity, scale):
    weight, _, _ = problem(seed)
    pruned, keep, _ = obs.sweep(weight, factors.factor(scale * torch.eye(COLUMNS)), select(sparsity), COLUMNS)
    assert torch.equal(keep, unstructured.keep(weight.abs(), sparsity, "layer"))
    assert torch.equal(pruned, weight * keep)


@given(seeds, sparsities)
def test_diagonal_hessian_has_wandas_order(seed, sparsity):
    weight, hessian, _ = problem(seed)
    diagonal = hessian.diagonal()
    factor = factors.factor(torch.diag(diagonal), 1e-9)
    _, keep, _ = obs.sweep(weight, factor, select(sparsity, "row"), COLUMNS)
    assert torch.equal(keep, unstructured.keep(weight.abs() * diagonal.sqrt(), sparsity, "row"))


@given(seeds)
def test_dead_inputs_go_first_and_nothing_breaks(seed):
    weight, hessian, _ = problem(seed)
    hessian[:, 3] = hessian[3, :] = 0
    pruned, keep, _ = obs.sweep(weight, factors.factor(hessian), select(1 / COLUMNS), COLUMNS)
    assert not keep[:, 3].any()
    torch.testing.assert_close(pruned[:, :3], weight[:, :3])
    assert obs.layer_error(weight, pruned, hessian) < 1e-6


def test_factorisation_raises_damping_and_says_so():
    hessian = torch.ones(8, 8)
    hessian[0, 1] = hessian[1, 0] = 1.3
    factor = factors.factor(hessian, 1e-4)
    assert factor.damping > 1e-4
    torch.testing.assert_close(
        torch.linalg.inv(factor.upper.T @ factor.upper), hessian + factor.damping * torch.eye(8), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_factorisation_refuses_non_finite(bad):
    with pytest.raises(factors.FactorisationError, match="not finite"):
        factors.factor(torch.eye(3).index_fill(0, torch.tensor([1]), bad))


def test_layer_error_is_the_outputs_relative_error():
    weight, hessian, x = problem(1)
    other = weight * (weight.abs() > 0.5)
    expected = (x @ (weight - other).T).square().sum() / (x @ weight.T).square().sum()
    assert obs.layer_error(weight, other, hessian) == pytest.approx(float(expected), rel=1e-4)


@given(seeds, st.integers(1, COLUMNS - 1))
def test_compensation_is_optimal_where_all_removed_columns_come_first(seed, first):
    weight, hessian, _ = problem(seed)
    keep = (torch.arange(COLUMNS) >= first).expand(ROWS, -1)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(COLUMNS)
    pruned, _, _ = obs.sweep(weight, factors.factor(hessian, 0.01), lambda s, start: keep)
    rest = torch.linalg.solve(damped[first:, first:].double(), (damped[first:, :first] @ weight[:, :first].T).double())
    torch.testing.assert_close(pruned[:, first:].double(), weight[:, first:] + rest.T, rtol=1e-3, atol=1e-3)
    assert obs.layer_error(weight, pruned, damped) <= obs.layer_error(weight, weight * keep, damped) + 1e-6


def test_compensation_can_lose_to_masking_where_it_cannot_go_back():
    """The sweep never returns to a passed column: the middle weight moves for the first, and the last then goes too."""
    weight = torch.tensor([[1.3079, -1.5564, 0.1535]])
    hessian = torch.tensor([[2.0236, 0.1966, -1.0539], [0.1966, 4.1446, -4.8554], [-1.0539, -4.8554, 6.1334]])
    keep = torch.tensor([[False, True, False]])
    pruned, _, _ = obs.sweep(weight, factors.factor(hessian, 1e-6), lambda s, start: keep)
    assert obs.layer_error(weight, pruned, hessian) > 5 * obs.layer_error(weight, weight * keep, hessian)
    damped = hessian + 1e-6 * hessian.diagonal().mean() * torch.eye(3)
    torch.testing.assert_close(pruned.double(), naive(weight, damped, keep), rtol=1e-3, atol=1e-3)


@given(seeds, st.sampled_from([(2, 4), (1, 4), (4, 8), (3, 8)]), st.sampled_from([1, 4, 6, 128]))
def test_n_m_is_decided_on_the_weights_as_they_are_when_reached(seed, nm, block):
    """N:M in the sweep equals naive OBS that chooses each group from a fresh inverse when it gets there."""
    n, m = nm
    weight, hessian, _ = problem(seed)
    pruned, keep, _ = obs.sweep(
        weight, factors.factor(hessian, 0.01), lambda s, start: n_m.keep(s, 0, "row", start, n=n, m=m), block, stride=m
    )
    assert (keep.view(ROWS, -1, m).sum(dim=2) == n).all()
    damped = (hessian + 0.01 * hessian.diagonal().mean() * torch.eye(COLUMNS)).double()
    w, chosen = weight.double().clone(), torch.ones_like(keep)
    for q in range(COLUMNS):
        if q % m == 0:
            turn = torch.stack([torch.linalg.inv(damped[i:, i:])[0, 0] for i in range(q, q + m)])
            chosen[:, q : q + m] = n_m.keep(w[:, q : q + m].square() / turn, 0, "row", n=n, m=m)
        inverse = torch.linalg.inv(damped[q:, q:])
        w[:, q:] -= torch.outer(w[:, q].masked_fill(chosen[:, q], 0.0) / inverse[0, 0], inverse[0])
    assert (keep == chosen).float().mean() >= 0.99
    if torch.equal(keep, chosen):
        torch.testing.assert_close(pruned.double(), w * chosen, rtol=1e-3, atol=1e-3)


@given(seeds, sparsities, blocks)
def test_mask_alone_moves_no_weight(seed, sparsity, block):
    weight, hessian, _ = problem(seed)
    factor = factors.factor(hessian, 0.01)
    pruned, keep, _ = obs.sweep(weight, factor, select(sparsity), block, compensate=False)
    assert torch.equal(pruned, weight * keep)
    whole = obs.saliency(weight, factor, slice(0, COLUMNS))
    starts = range(0, COLUMNS, block)
    expected = [unstructured.keep(whole[:, i : i + block], sparsity, "block", i) for i in starts]
    assert torch.equal(keep, torch.cat(expected, dim=1))


def spec(**more: Any) -> PruneSpec:
    return PruneSpec(**{"prompts": ("a",)} | more)


def solved(weight: torch.Tensor, hessian: torch.Tensor, made: PruneSpec, mean: torch.Tensor | None = None):
    seen = Input(1.0, torch.zeros(COLUMNS) if mean is None else mean, hessian.diagonal() / 2, hessian, 0.01)
    method = registry.load("obsdiff.methods", made.method)
    return solve_layer(weight, seen, method, made, made.amount, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["obs_diff", "wanda", "magnitude"])
@given(seeds, sparsities, st.sampled_from(["block", "row", "layer"]))
def test_comparison_group(method, seed, sparsity, group):
    """Counts are exact over the layer, over each block of columns, and over each row, as asked."""
    weight, hessian, _ = problem(seed)
    _, keep, _ = solved(weight, hessian, spec(method=method, sparsity=sparsity, group=group, block_size=8))
    assert int((~keep).sum()) == round(weight.numel() * sparsity)
    parts = {"row": keep.view(ROWS, -1), "block": keep.view(ROWS, 2, 8).transpose(0, 1).reshape(2, -1)}
    if group in parts:
        removed = (~parts[group]).sum(dim=1)
        assert int(removed.max() - removed.min()) <= 1


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("method", ["dsnot", "dsnot_wanda"])
@given(seeds)
def test_dsnot_swaps_within_rows_and_lowers_their_mean_error(method, pattern, seed):
    weight, hessian, x = problem(seed)
    mean = x.mean(dim=0) + 0.3
    made = spec(method=method, pattern=pattern)
    entry = registry.load("obsdiff.methods", method)
    seen = Input(1.0, mean, hessian.diagonal() / 2 + mean.square(), hessian, 0.01)
    start = solve_layer(weight, seen, SimpleNamespace(**vars(entry) | {"refine": lambda w, k, *_: k}), made, 0.5, None)[
        1
    ]
    pruned, keep, _ = solve_layer(weight, seen, entry, made, 0.5, torch.Generator())
    assert torch.equal(pruned, weight * keep) and torch.equal(keep.sum(dim=1), start.sum(dim=1))
    if pattern == "2:4":
        assert (keep.view(ROWS, -1, 4).sum(dim=2) == 2).all()
    before, after = ((weight * ~mask * mean).sum(dim=1).abs() for mask in (start, keep))
    assert (after <= before + 1e-6).all() and bool((after < before).any()) == (not torch.equal(start, keep))


@given(seeds, st.floats(0.2, 3.0))
def test_bias_takes_up_the_removed_mean(seed, shift):
    """With (W − Ŵ) E[x] in the bias, the error that is left is ΔW Cov ΔWᵀ: what centred() says."""
    weight, _, x = problem(seed)
    x = x + shift
    hessian, mean = 2 * x.T @ x / len(x), x.mean(dim=0)
    seen = Input(1.0, mean, hessian.diagonal() / 2, hessian, 0.01)
    pruned, _, _ = obs.sweep(weight, seen.centred().factor, select(0.5), 8)
    left = (x @ (weight - pruned).T - (weight - pruned) @ mean).square().sum(dim=1).mean()
    delta = weight - pruned
    expected = ((delta @ seen.centred().hessian) * delta).sum() / 2
    torch.testing.assert_close(left, expected, rtol=1e-3, atol=1e-3)
