"""Sensitivities of the guided output: Jacobians computed entry by entry, scale, a token that counts twice."""

from dataclasses import replace

import pytest
import torch
from conftest import SAMPLING, spec_of
from torch import nn

from obsdiff import models
from obsdiff.calibration import sensitivity
from obsdiff.calibration.calls import Call
from obsdiff.calibration.runs import Calibration
from obsdiff.calibration.sensitivity import Sensitivity
from obsdiff.calibration.stored import trajectory_of
from obsdiff.pipelines import staging
from obsdiff.solver.statistics import Hessian, Moments
from obsdiff.spec import PruneSpec

CPU = torch.device("cpu")
SHORT = replace(SAMPLING, steps=3, batch_size=2)
PROMPTS = ("a cat", "two dogs", "red")


class Plain:
    """A trajectory of one call of a small network, whose rows are prompts, or both sides of guidance."""

    def __init__(self, x: torch.Tensor, prompts: int) -> None:
        self.x, self.prompts = x, [slice(0, prompts)]

    def run(self, call, denoiser, device, differentiable=False):
        return (denoiser(self.x.clone().requires_grad_(differentiable)),)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def jacobian_energy(network: Small, x: torch.Tensor, guidance: float | None) -> torch.Tensor:
    """Σ over entries of v of (∂v / ∂first's output)², (batch, tokens, rows)."""

    def output(hidden: torch.Tensor) -> torch.Tensor:
        out = network.second(torch.tanh(hidden))
        if guidance is None:
            return out
        u, c = out.chunk(2)
        return u + guidance * (c - u)

    jacobian = torch.autograd.functional.jacobian(output, network.first(x).detach())
    return jacobian.square().sum(dim=(0, 1, 2))


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_the_mean_over_many_draws_is_the_squared_jacobian(guidance):
    network = Small()
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    plain, groups = Plain(x, 2 if guidance is None else 1), [("first",)]
    tokens, rows, draws = torch.zeros(2, 5), torch.zeros(3), 3000
    for seed in range(draws):
        found = sensitivity.measure(plain, [Call(0, 0, {})], network, groups, CPU, guidance or 1.0, seed, None, 1.0)
        tokens += found.tokens[0, ("first",), 0] / draws
        rows += found.rows["first"] / draws
    expected = jacobian_energy(network, x, guidance)
    torch.testing.assert_close(tokens, expected.sum(dim=-1), rtol=0.15, atol=0.02 * float(expected.sum(dim=-1).max()))
    torch.testing.assert_close(rows, expected.sum(dim=(0, 1)), rtol=0.1, atol=0.0)


def test_a_pass_leaves_the_network_as_it_was():
    network = Small()
    network.second.bias.requires_grad_(False)
    flags = [p.requires_grad for p in network.parameters()]
    sensitivity.measure(
        Plain(torch.ones(1, 2, 4), 1), [Call(0, 0, {})], network, [("first",)], CPU, 1.0, 0, "second", 1.0
    )
    assert [p.requires_grad for p in network.parameters()] == flags
    assert all(p.grad is None for p in network.parameters())
    assert not network.first._forward_hooks and not network.second._forward_hooks


def measured(family, spec: PruneSpec) -> tuple:
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    trajectory = trajectory_of(spec, {}, None)
    with torch.no_grad(), staging.staged(pipe):
        trajectory.record(Calibration(pipe, spec), denoiser)
        groups = family.groups(denoiser)
        found = sensitivity.measure(
            trajectory, trajectory.calls(), denoiser, groups, CPU, 3.0, 0, family.TRAITS.last, 0.5
        )
    return trajectory, groups, found


def test_every_family_gives_a_weight_for_every_token_and_row(family):
    spec = spec_of("solace", prompts=PROMPTS, sampling=SHORT, calibration_steps=0)
    trajectory, groups, found = measured(family, spec)
    assert found.rows.keys() == {name for group in groups for name in group}
    for group in groups:
        weights = found.token_weights(group)
        if weights is None:  # what the last block makes of the text is thrown away
            assert all(found.row_weights(name) is None for name in group)
            continue
        values = torch.cat([w.flatten() for w in weights.values()])
        assert len(weights) == len(trajectory.calls()) and float(values.mean()) == pytest.approx(1.0, rel=1e-4)
    assert any(found.row_weights(name) is not None for name in found.rows)
    assert len(found.outputs) == (len(trajectory.calls()) if family.TRAITS.last else 0)


def test_scale_and_zeros():
    sums = Sensitivity(1.0, {(0, ("a",), 0): torch.tensor([[1.0, 3.0]])}, {"a": torch.tensor([0.0, 2.0, 4.0])})
    larger = Sensitivity(1.0, {(0, ("a",), 0): torch.tensor([[7.0, 21.0]])}, {"a": torch.tensor([0.0, 14.0, 28.0])})
    for one in (sums, larger):
        torch.testing.assert_close(one.token_weights(("a",))[0, 0], torch.tensor([[0.5, 1.5]]))
        rows = one.row_weights("a")
        torch.testing.assert_close(rows, torch.tensor([sensitivity.LEAST, 1.0, 2.0]))
    assert larger.importance("a", ("a",)) == pytest.approx(7 * sums.importance("a", ("a",)))
    nothing = Sensitivity(1.0, {(0, ("a",), 0): torch.zeros(1, 2)}, {"a": torch.zeros(3)})
    assert nothing.token_weights(("a",)) is None and nothing.row_weights("a") is None


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_tokens_differ_by_a_power_of_their_sensitivities(power):
    sums = Sensitivity(power, {(0, ("a",), 0): torch.tensor([[1.0, 9.0]]), (1, ("a",), 0): torch.tensor([[4.0]])})
    weights = sums.token_weights(("a",))
    assert weights is not None
    low, high = weights[0, 0][0].tolist()
    other = float(weights[1, 0])
    assert (high / low, other / low) == pytest.approx((9.0**power, 4.0**power))
    assert low + high + other == pytest.approx(3.0)


@pytest.mark.parametrize("kind", [Moments, Hessian])
def test_a_token_that_counts_twice_is_as_good_as_two(kind):
    x = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    weighed, twice = kind(5, CPU), kind(5, CPU)
    weighed.add(x, 0.7, torch.tensor([[1.0, 2.0, 0.0]]))
    twice.add(x[:, [0, 1, 1]], 0.7)
    one, other = weighed.value(CPU), twice.value(CPU)
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.squared_norm, other.squared_norm)
    assert one.tokens == pytest.approx(other.tokens)
    if kind is Hessian:
        torch.testing.assert_close(one.hessian, other.hessian)
