"""Heads and neurons removed for real: the elimination's optimality, and surgery against zeroed columns."""

import pytest
import torch
from conftest import SAMPLING, spec_of
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import SpecError, elimination, models, obs, prune, surgery
from obsdiff.surgery import Site, Span, State, Stream

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
    (pruned,), kept = elimination.eliminate([elimination.Problem(weight, obs.factor(hessian))], size, groups, count)
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
    _, kept = elimination.eliminate([elimination.Problem(weight, obs.factor(hessian))], SIZE, GROUPS, 1)
    costs = []
    for group in range(GROUPS):
        stays = torch.ones(COLUMNS, dtype=torch.bool)
        stays[group * SIZE : (group + 1) * SIZE] = False
        delta = optimum(weight, hessian, stays) - weight.double()
        costs.append(float(((delta @ damped(hessian)) * delta).sum()))
    assert set(range(GROUPS)) - set(kept.tolist()) == {min(range(GROUPS), key=costs.__getitem__)}
    expected = elimination.group_costs(weight.double(), torch.linalg.inv(damped(hessian)), 0, SIZE, GROUPS)
    assert expected.tolist() == pytest.approx(costs, rel=1e-4)


@given(seeds, st.integers(1, GROUPS - 1))
def test_streams_lose_the_same_groups_and_their_order_does_not_matter(seed, count):
    problems = [elimination.Problem(w, obs.factor(h)) for w, h in (problem(seed), problem(seed + 1))]
    _, kept = elimination.eliminate(problems, SIZE, GROUPS, count)
    _, swapped = elimination.eliminate(problems[::-1], SIZE, GROUPS, count)
    assert torch.equal(kept, swapped)
    _, alike = elimination.eliminate([problems[0]] * 2, SIZE, GROUPS, count)
    _, alone = elimination.eliminate(problems[:1], SIZE, GROUPS, count)
    assert torch.equal(alike, alone)


@given(seeds, st.integers(0, 3), st.integers(1, GROUPS - 1))
def test_columns_beside_the_groups_compensate_and_stay(seed, first, count):
    """The groups may begin anywhere in the consumer, as in a projection that reads attention and MLP together."""
    weight, hessian = problem(seed)
    groups = (COLUMNS - first) // SIZE - 1
    count = min(count, groups - 1)
    (pruned,), kept = elimination.eliminate([elimination.Problem(weight, obs.factor(hessian), first)], SIZE, groups, count)
    stays = torch.ones(COLUMNS, dtype=torch.bool)
    for group in set(range(groups)) - set(kept.tolist()):
        stays[first + group * SIZE : first + (group + 1) * SIZE] = False
    torch.testing.assert_close(pruned.double(), optimum(weight, hessian, stays), rtol=1e-3, atol=1e-3)


@given(seeds, st.integers(0, GROUPS - 1))
def test_without_compensation_nothing_moves(seed, count):
    weight, hessian = problem(seed)
    (pruned,), kept = elimination.eliminate([elimination.Problem(weight, obs.factor(hessian))], SIZE, GROUPS, count, compensate=False)
    stays = torch.zeros(GROUPS, dtype=torch.bool)
    stays[kept] = True
    assert torch.equal(pruned, weight * stays.repeat_interleave(SIZE))


def test_gated_feed_forward_loses_both_rows_of_a_neuron():
    """GEGLU: neuron j is row j and row n + j of the projection; output is the same as with its column zero."""
    g = torch.Generator().manual_seed(0)
    project, read = torch.nn.Linear(4, 12), torch.nn.Linear(6, 4)
    site = Site("neurons", 6, 1, (Stream(Span("read"), (Span("project"), Span("project", 6))),))
    kept = torch.tensor([0, 2, 5])
    small = surgery.shrink({n: surgery.state_of(m) for n, m in (("project", project), ("read", read))}, [(site, kept)])
    x = torch.randn(3, 4, generator=g)

    def run(made: State, reading: State) -> torch.Tensor:
        hidden, gate = torch.nn.functional.linear(x, *made).chunk(2, dim=-1)
        return torch.nn.functional.linear(hidden * torch.nn.functional.gelu(gate), *reading)

    zeroed = read.weight.detach().clone()
    zeroed[:, [1, 3, 4]] = 0
    assert small["project"].weight.shape == (6, 4) and small["project"].bias.shape == (6,)
    expected = run(surgery.state_of(project), State(zeroed, read.bias.detach()))
    torch.testing.assert_close(run(small["project"], small["read"]), expected)


@pytest.mark.parametrize("pattern", ["heads", "neurons", "structured"])
@pytest.mark.parametrize("bias", [False, True])
def test_surgery_is_zeroed_columns(family, pattern, bias):
    """The small model computes what the dense one does with the consumers' columns zero (and their biases moved)."""
    small, zeroed = family.tiny(), family.tiny()
    report = prune(small, spec_of("obs_diff", pattern=pattern, bias=bias))
    full = models.denoiser_of(zeroed)
    kept = {(site.layer, site.kind): torch.tensor(site.kept) for site in report.sites}
    every = [((site.layers[0], site.kind), site) for site in family.sites(full)]
    sites = [(site, kept[name]) for name, site in every if name in kept]
    assert {s.kind for s, _ in sites} == ({"heads", "neurons"} if pattern == "structured" else {pattern})
    with torch.no_grad():
        for layer in {stream.consumer.layer for site, _ in sites for stream in site.streams}:
            own = models.linear(models.denoiser_of(small), layer)
            target = models.linear(full, layer)
            columns = surgery.staying_columns(sites, layer, target.in_features)
            target.weight.zero_()
            target.weight[:, columns] = own.weight
            if target.bias is not None:
                target.bias.copy_(own.bias)
    embeds = family.encode(small, ["a cat", "two dogs"], SAMPLING)
    outputs = []
    for pipe in (small, zeroed):
        noise = torch.Generator().manual_seed(1)
        outputs.append(pipe(**embeds, **SAMPLING.arguments(), generator=noise, output_type="latent").images)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in models.denoiser_of(small).parameters()) < sum(p.numel() for p in full.parameters())


def test_excluded_blocks_stay_dense_and_all_heads_cannot_go(family):
    pipe, dense = family.tiny(), family.tiny()
    sites = family.sites(models.denoiser_of(dense))
    block = sites[0].layers[0].split(".attn")[0]
    prune(pipe, spec_of("magnitude", pattern="structured", exclude=(f"{block}.*",)))
    left, right = (models.denoiser_of(p).state_dict() for p in (pipe, dense))
    assert all(torch.equal(left[k], right[k]) for k in left if k.startswith(f"{block}."))
    assert any(left[k].shape != right[k].shape for k in left)
    with pytest.raises(SpecError, match=r"sparsity: 0\.9 leaves none of the 2 heads of"):
        prune(family.tiny(), spec_of("magnitude", pattern="heads", sparsity=0.9))
