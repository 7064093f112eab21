"""oneDNN's products in place of MKL's: equal but for rounding, in the block alone, and only where they are faster."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import devices, onednn

SIDE = 160
"""of a product that is large enough"""


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Also on a processor where MKL's kernels are as fast."""
    monkeypatch.setattr(onednn, "faster", lambda: True)


@pytest.fixture
def taken(monkeypatch):
    """The shapes of the products that oneDNN computed."""
    shapes, product = [], onednn.product
    monkeypatch.setattr(
        onednn, "product", lambda x, y, bias=None: shapes.append((*x.shape, y.shape[1])) or product(x, y, bias)
    )
    return shapes


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views(rows: int, columns: int, seed: int) -> list[torch.Tensor]:
    """Matrices of one shape, laid out in every way that a view has."""
    whole = drawn(rows + 3, columns + 5, seed=seed)
    return [
        drawn(rows, columns, seed=seed),
        drawn(columns, rows, seed=seed).T,
        whole[3:, 5:],
        drawn(columns + 1, rows + 2, seed=seed)[1:, 2:].T,
        drawn(2 * rows, columns, seed=seed)[::2],
        drawn(rows, 1, seed=seed).expand(rows, columns),
        drawn(columns, seed=seed).expand(rows, columns),
    ]


def assert_near(found: torch.Tensor, exact: torch.Tensor, inner: int) -> None:
    """To the rounding of float32 sums of `inner` products of standard normal factors."""
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=2e-6 * inner)


@pytest.mark.parametrize("left", range(7))
@pytest.mark.parametrize("right", range(7))
def test_every_layout_gives_the_product(left, right, taken):
    x, y = views(176, 144, 1)[left], views(144, 192, 2)[right]
    for bias in (drawn(192, seed=3), drawn(1).expand(192), drawn(384, seed=3)[::2]):
        with onednn.products(onednn.SMALL):
            found, added = torch.mm(x, y), torch.addmm(bias, x, y)
        assert_near(found, x.double() @ y.double(), 144)
        assert_near(added, x.double() @ y.double() + bias.double(), 144)
    assert set(taken) == {(176, 144, 192)} and len(taken) == 6


@pytest.mark.parametrize("layout", range(7))
def test_the_second_factor_has_no_gaps(layout):
    """With gaps oneDNN takes a reference kernel, a thousand times as slow."""
    matrix = views(176, 144, 1)[layout]
    found = onednn.dense(matrix)
    assert torch.equal(found, matrix) and found.numel() == 144 * 176
    assert sorted(found.stride()) in ([1, 144], [1, 176])


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([-1.0, 0.5, 1.0, 2.0]),
    st.integers(0, 6),
    st.integers(1, 9),
)
def test_products_are_added_in_place(rows, inner, columns, alpha, layout, parts):
    """In parts of any number of rows, to matrices that are views themselves."""
    whole = drawn(rows + 1, columns + 2, seed=4)
    total, x, y = whole[1:, 2:], views(rows, inner, 5)[layout], drawn(inner, columns, seed=6)
    exact = total.double() + alpha * (x.double() @ y.double())
    edge = whole[0].clone(), whole[:, :2].clone()
    with pytest.MonkeyPatch.context() as patch, onednn.products(1):
        patch.setattr(onednn, "ROWS", -(-rows // parts))
        assert total.addmm_(x, y, alpha=alpha) is total
    assert_near(total, exact, 2 * inner)
    assert torch.equal(whole[0], edge[0]) and torch.equal(whole[:, :2], edge[1])


def test_gradients_are_those_of_torch(taken):
    def gradients() -> list[torch.Tensor]:
        x, weight, bias = (drawn(*shape, seed=7).requires_grad_() for shape in ((3, 64, SIDE), (SIDE, SIDE), (SIDE,)))
        torch.nn.functional.linear(x, weight, bias).square().sum().backward()
        return [factor.grad for factor in (x, weight, bias) if factor.grad is not None]

    expected = gradients()
    assert not taken
    with onednn.products(onednn.SMALL):
        found = gradients()
    assert len(taken) == 3, "of the call and of both factors"
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-3)


def test_it_ends_with_the_block(taken):
    """A block in another has its own smallest product; after an error, the outer one's counts again."""
    x = drawn(SIDE, SIDE)
    with devices.stated_precision(onednn.SMALL):
        with pytest.raises(KeyError), devices.stated_precision():
            x @ x
            raise KeyError
        assert not taken
        x @ x
        assert taken == [(SIDE,) * 3]
    x @ x
    with devices.stated_precision(None):
        x @ x
    assert len(taken) == 1


def test_small_products_and_other_dtypes_are_torchs(taken):
    cases = [(drawn(8, SIDE), drawn(SIDE, 8)), (drawn(SIDE, SIDE).double(),) * 2, (drawn(SIDE, SIDE).bfloat16(),) * 2]
    expected = [x @ y for x, y in cases]
    with onednn.products(onednn.SMALL):
        found = [x @ y for x, y in cases]
        scaled = torch.addmm(drawn(SIDE), drawn(SIDE, SIDE), drawn(SIDE, SIDE), beta=2, alpha=0.5)
    assert not taken and all(map(torch.equal, found, expected))
    assert torch.equal(scaled, torch.addmm(drawn(SIDE), drawn(SIDE, SIDE), drawn(SIDE, SIDE), beta=2, alpha=0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.mm(drawn(300, 400), drawn(401, 300)),
        lambda: torch.mm(drawn(400), drawn(400, 300)),
        lambda: torch.mm(drawn(300, 400), drawn(400, 300).double()),
        lambda: torch.addmm(drawn(299), drawn(300, 400), drawn(400, 300)),
        lambda: drawn(300, 299).addmm_(drawn(300, 400), drawn(400, 300)),
        lambda: drawn(300).addmm_(drawn(300, 400), drawn(400, 300)),
        lambda: drawn(300, 300).addmm_(drawn(300, 400), drawn(300)),
        lambda: drawn(300, 1).expand(300, 300).addmm_(drawn(300, 400), drawn(400, 300)),
    ],
)
def test_what_torch_refuses_is_refused_in_its_words(wrong):
    with pytest.raises((RuntimeError, IndexError)) as expected:
        wrong()
    with onednn.products(onednn.SMALL), pytest.raises(expected.type) as found:
        wrong()
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    ("maker", "instructions", "faster"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        (None, "AVX512", False),
        (None, "DEFAULT", False),
    ],
)
def test_it_is_for_wide_processors_of_another_maker(maker, instructions, faster, monkeypatch):
    monkeypatch.undo()  # faster() itself
    monkeypatch.setattr(onednn, "cpuinfo", lambda field: {"vendor_id": maker}[field])
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert onednn.faster.__wrapped__() is faster
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not onednn.faster.__wrapped__()
