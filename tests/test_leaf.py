"""The GPU's kernel for a leaf of the sweep, run by Triton's interpreter: it gives what the sweep gives without it."""

import sys

import pytest
import torch

from obsdiff.patterns import n_m, unstructured
from obsdiff.solver import factors, obs


@pytest.fixture
def kernel(monkeypatch):
    """obsdiff.solver.leaf as the interpreter has it, and the sweep told to use it."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "obsdiff.solver.leaf", raising=False)
    calls = []
    monkeypatch.setattr(obs, "kernels", lambda tensor: calls.append(0) or True)
    yield calls
    sys.modules.pop("obsdiff.solver.leaf", None)  # the interpreter's


def assert_same(found: obs.Swept, expected: obs.Swept) -> None:
    assert torch.equal(found.keep, expected.keep)
    torch.testing.assert_close(found.weight, expected.weight)
    assert found.error == pytest.approx(expected.error, rel=1e-5)


@pytest.mark.parametrize(("n", "m", "columns"), [(2, 4, 40), (1, 4, 16), (4, 8, 24), (5, 6, 36), (1, 32, 64)])
def test_kernel_decides_n_of_m_as_the_pattern_does(n, m, columns, kernel, monkeypatch):
    weight, factor = problem(130, columns)
    weight[:, :8] = weight[:, :8].round()  # ties, at first
    weight[0] = 0.0

    def select(scores, start):
        return n_m.keep(scores, 1 - n / m, "block", start, n=n, m=m)

    arguments = (weight, factor, select, 24, m)
    found = obs.sweep(*arguments, stay=n)
    assert kernel
    monkeypatch.setattr(obs, "kernels", lambda tensor: False)
    assert_same(found, obs.sweep(*arguments))


def problem(rows: int, columns: int):
    """A layer with a dead column."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3 * columns, columns, generator=generator)
    x[:, 3] = 0.0
    return torch.randn(rows, columns, generator=generator), factors.factor(x.T @ x)


@pytest.mark.parametrize("columns", [5, 16, 43])
def test_kernel_moves_columns_as_the_sweep_does(columns, kernel, monkeypatch):
    weight, factor = problem(9, columns)

    def select(scores, start):
        return unstructured.keep(scores, 0.5, "block", start)

    found = obs.sweep(weight, factor, select, 24)
    assert kernel
    monkeypatch.setattr(obs, "kernels", lambda tensor: False)
    assert_same(found, obs.sweep(weight, factor, select, 24))
