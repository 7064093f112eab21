"""Products of inputs: exact in every arithmetic that is chosen, and sums of the triangle that are the whole sums."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretended import CUDA, machine

from benchmarks import statistics as benchmark
from obsdiff import devices
from obsdiff.solver import products
from obsdiff.solver.statistics import Hessian

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SIGNIFICANDS = {torch.bfloat16: 8, torch.float16: 11}


def values(dtype: torch.dtype) -> torch.Tensor:
    """Every finite number of a half dtype."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    found = bits.view(dtype)
    return found[torch.isfinite(found)]


@pytest.mark.parametrize("dtype", products.HALF)
def test_products_of_two_halves_are_exact_in_float32(dtype):
    """Every pair of significands; a power of two moves the exponent alone, as far as float32 has one."""
    low, high = 1 << (SIGNIFICANDS[dtype] - 1), 1 << SIGNIFICANDS[dtype]
    significands = torch.arange(low, high).to(dtype)
    assert torch.equal(significands.long(), torch.arange(low, high)), "not every significand"
    narrow, wide = (torch.outer(significands.to(d), significands.to(d)) for d in (torch.float32, torch.float64))
    assert torch.equal(narrow.double(), wide)
    g = torch.Generator().manual_seed(0)
    every = values(dtype)
    a, b = (every[torch.randint(len(every), (1 << 20,), generator=g)] for _ in range(2))
    wide = a.double() * b.double()
    normal = (wide.abs() >= torch.finfo(torch.float32).tiny) & (wide.abs() <= torch.finfo(torch.float32).max)
    assert torch.equal((a.float() * b.float()).double()[normal], wide[normal])
    assert normal.float().mean() > 0.7


@pytest.mark.parametrize("dtype", products.HALF)
def test_tf32_holds_every_half(dtype):
    """It drops the last 13 bits of a float32, which no half has."""
    whole = values(dtype).float()
    normal = (whole == 0) | (whole.abs() >= torch.finfo(torch.float32).tiny)
    assert not (whole.view(torch.int32)[normal] & 0x1FFF).any()
    assert (torch.tensor(1 + 2**-11).view(torch.int32) & 0x1FFF) != 0, "float32 has such bits"


@pytest.mark.parametrize(("device", "dtype", "served"), list(product(["cpu", "cuda"], DTYPES, [False, True])))
def test_only_halves_on_a_gpu_leave_float32(device, dtype, served):
    half = device == "cuda" and dtype in (torch.bfloat16, torch.float16)
    assert products.way(device, dtype, served) == (("half" if served else "tf32") if half else "float32")


@pytest.mark.parametrize(("dtype", "served", "offloaded"), list(product(DTYPES, [False, True], [False, True])))
def test_a_gpu_computes_as_it_is_said(dtype, served, offloaded, monkeypatch):
    x = torch.randn(4, 3, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = Hessian(9, x.device)
    expected.add(x, 0.5)
    monkeypatch.setitem(products.WIDTHS, "cuda", 4)
    monkeypatch.setattr(products, "WHOLE", 8)
    with machine() as gpu, devices.stated_precision():
        products.served.cache_clear()
        assert products.served(CUDA, dtype) == (dtype in products.HALF)
        monkeypatch.setattr(products, "served", lambda device, dtype: served)
        found = Hessian(9, torch.device("cpu") if offloaded else CUDA)
        here, before, waits = x.to(CUDA), gpu.halves, gpu.waits
        found.add(here, 0.5)
        assert gpu.waits - waits == (4 if offloaded else 0), "the columns' sum and three block rows"
        value = found.value(torch.device("cpu"))
        chosen = products.way("cuda", dtype, served)
        assert gpu.halves - before == (3 if chosen == "half" else 0)
        assert gpu.precisions == {"float32": {"ieee"}, "tf32": {"tf32", "ieee"}, "half": set()}[chosen]
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    torch.testing.assert_close(value.hessian, expected.value(torch.device("cpu")).hessian)
    torch.testing.assert_close(value.mean, expected.value(torch.device("cpu")).mean)


def test_a_device_that_refuses_products_of_halves_or_gets_them_wrong_is_not_served(monkeypatch):
    assert not products.served(torch.device("cpu"), torch.bfloat16)

    def refuse(*_, **__):
        raise RuntimeError("out_dtype is not supported")

    with machine():
        for addmm in (refuse, lambda sums, *_, **__: sums.add_(1)):
            products.served.cache_clear()
            monkeypatch.setattr(torch, "addmm", addmm)
            assert not products.served(CUDA, torch.float16)
    products.served.cache_clear()


@given(st.integers(1, 40), st.integers(1, 17), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_the_triangle_mirrored_is_the_whole_sum(columns, width, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    sums, before = torch.zeros(columns, columns), dict(products.WIDTHS)
    inputs = [torch.randn(7, columns, generator=g).to(dtype) for _ in range(2)]
    products.WIDTHS["cpu"] = width
    try:
        for alpha, x in zip((0.7, 1.1), inputs, strict=True):
            products.add(sums, x, alpha)
        made = products.mirror(sums)
    finally:
        products.WIDTHS.update(before)
    whole = sum(alpha * x.double().T @ x.double() for alpha, x in zip((0.7, 1.1), inputs, strict=True))
    torch.testing.assert_close(made.double(), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(made, made.T)


def test_the_benchmark_has_a_row_for_every_dtype_and_tells_the_error(tmp_path, monkeypatch):
    for chosen in (benchmark.TOKENS, benchmark.COLUMNS):
        for device in chosen:
            monkeypatch.setitem(chosen, device, 50 if chosen is benchmark.TOKENS else (9, 20))
    benchmark.main(tmp_path / "cpu.md", threads=1, repeats=1)
    with machine() as gpu:
        products.served.cache_clear()
        benchmark.main(tmp_path / "cuda.md", "cuda", threads=1, repeats=1)
        assert gpu.halves
    for name, dtypes in (("cpu.md", ["float32"]), ("cuda.md", ["float32", "bfloat16", "float16"])):
        rows = [line.split(" | ") for line in (tmp_path / name).read_text().splitlines() if "float" in line][1:]
        assert [row[0].removeprefix("| ") for row in rows] == dtypes * 2
        assert all(float(row[-1].removesuffix(" |")) < 1e-5 for row in rows)
