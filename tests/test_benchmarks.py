"""Benchmarks: variants are let in only if they are right, patterns take turns, and a grid has all its rows."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SAMPLING
from torch import nn

from benchmarks import kernels, variants
from benchmarks.candidates import spec_of
from benchmarks.latency import markdown, point
from benchmarks.variants import Refused, compiled, is_two_of_four, judge, semi_structured, twin
from obsdiff import load_pruned, prune, registry, save_pruned
from obsdiff.checkpoints.swapping import swaps, taken_off
from obsdiff.errors import SpecError
from obsdiff.patterns import n_m

X = torch.arange(6.0)
CHEAP = {"tolerance": 1e-4, "rounds": 3, "seconds": 1e-3}


@pytest.mark.parametrize(
    ("times", "words"),
    [([1.0, 2.0, 1.5], "faster"), ([5.0, 6.0, 7.0], "slower"), ([3.0, 5.0, 4.0], "no difference shown")],
)
def test_variant_that_is_right_is_reported_whether_faster_or_not(times, words, monkeypatch):
    found = {("eager", ""): [4.0, 4.0, 4.0], ("variant", ""): times}
    monkeypatch.setattr(variants, "in_turns", lambda *_: found)
    verdict = judge(lambda: X, lambda: lambda: X.clone(), **CHEAP)
    assert (str(verdict), verdict.error, verdict.reason) == (words, 0, "")
    assert verdict.speedup == pytest.approx(np.percentile([4 / t for t in times], [25, 50, 75]), abs=1e-4)


@pytest.mark.parametrize("wrong", [X * 1.01, X * float("nan")])
def test_variant_that_is_wrong_is_refused_and_not_timed(wrong):
    calls = []
    verdict = judge(lambda: X, lambda: lambda: calls.append(0) or wrong, **CHEAP)
    assert verdict.speedup is None and len(calls) == 1 and not verdict.error <= 1e-4
    assert str(verdict).startswith("refused: its output is off by ") and "more than 0.0001" in str(verdict)
    assert judge(lambda: X, lambda: lambda: X * (1 + 1e-5), **CHEAP).speedup is not None


@pytest.mark.parametrize("when", ["made", "run"])
def test_variant_that_fails_is_refused_with_the_reason(when):
    def fail():
        raise RuntimeError("no such kernel\ndetails")

    verdict = judge(lambda: X, fail if when == "made" else lambda: fail, **CHEAP)
    assert (verdict.error, verdict.speedup, str(verdict)) == (None, None, "refused: no such kernel")


def test_twin_shares_weights_and_leaves_the_other_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    made = twin(model)
    pairs = zip([*model.parameters(), *model.buffers()], [*made.parameters(), *made.buffers()], strict=True)
    assert all(a is b for a, b in pairs)
    made[0].weight = nn.Parameter(torch.zeros(4, 4))
    assert model[0].weight.count_nonzero() == 16


def test_compiled_denoiser_is_a_twin_with_compiled_blocks(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    monkeypatch.setattr(nn.Module, "compile", lambda self, dynamic: chosen.append((self, dynamic)))
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    made = compiled(pipe.transformer)
    assert chosen == [(block, False) for block in made.transformer_blocks] and made is not pipe.transformer
    assert all(a is b for a, b in zip(made.parameters(), pipe.transformer.parameters(), strict=True))
    whole = compiled(nn.Linear(2, 2))
    assert chosen[-1] == (whole, False)


def test_sparse_kernels_take_two_of_four_alone(monkeypatch):
    with pytest.raises(Refused, match="run on CUDA, not on cpu"):
        semi_structured(nn.Linear(8, 8))
    assert not is_two_of_four(torch.ones(8, 8)) and not is_two_of_four(torch.zeros(8, 6))
    scores = torch.rand(8, 64)
    sparse = scores * n_m.keep(scores, 0.5, "row", 0, n=2, m=4)
    assert is_two_of_four(sparse) and not is_two_of_four(sparse.T.contiguous())

    class Remote(nn.Sequential):
        """On the GPU in word only."""

        def parameters(self, recurse=True):
            yield SimpleNamespace(device=torch.device("cuda"), dtype=self.dtype)
            yield from super().parameters(recurse)

    def model(dtype, *weights):
        made = Remote(*(nn.Linear(w.shape[1], w.shape[0]) for w in weights))
        made.dtype = dtype
        for layer, weight in zip(made, weights, strict=True):
            layer.weight = nn.Parameter(weight)
        return made

    def kernel(weight):
        if weight.shape[0] % 16:
            raise RuntimeError("dimensions must be multiples of 16")
        return weight.clone()

    monkeypatch.setattr(variants, "to_sparse_semi_structured", kernel)
    with pytest.raises(Refused, match="float16 and bfloat16, not float32"):
        semi_structured(model(torch.float32, sparse))
    with pytest.raises(Refused, match=r"no layer is 2:4"):
        semi_structured(model(torch.float16, scores))
    with pytest.raises(Refused, match="multiples of 16"):
        semi_structured(model(torch.float16, sparse))
    large = torch.cat([sparse, sparse])
    dense = model(torch.bfloat16, sparse, large, scores)
    made = semi_structured(dense)
    shared = [a.weight is b.weight for a, b in zip(made, dense, strict=True)]
    assert shared == [True, False, True]


@pytest.mark.parametrize("text", ["structured=half", "structurd", "structured=1.5", "2:4=0.7"])
def test_patterns_are_checked(text):
    with pytest.raises(SpecError):
        spec_of(text)


@torch.no_grad()
def test_weights_take_turns_whatever_was_there_before(tmp_path):
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    state = {key: value.clone() for key, value in pipe.transformer.state_dict().items()}
    texts = ("unstructured=0.5", "2:4", "structured=0.5")
    weights = {text: taken_off(pipe, lambda t=text: prune(pipe, spec_of(t))) for text in texts}
    other = registry.load("obsdiff.models", "sd3").tiny()
    save_pruned(other, tmp_path, prune(other, spec_of("structured=0.5")))
    weights["checkpoint"] = taken_off(pipe, lambda: load_pruned(pipe, tmp_path))
    install, found = swaps(pipe, weights), {}
    order = ["dense", *texts, "checkpoint", "2:4", "dense"]
    for name in order:
        install[name]()
        counted = sum(int(p.count_nonzero()) for p in pipe.transformer.parameters())
        assert found.setdefault(name, counted) == counted
    assert all(torch.equal(state[key], value) for key, value in pipe.transformer.state_dict().items())
    assert found["checkpoint"] == found["structured=0.5"] < found["dense"] > found["2:4"]

    rows = [row for size in (1, 2) for row in point(pipe, weights, SAMPLING, size, rounds=1, pipelines=1)]
    assert len(rows) == 2 * 5 * 3 and {row["what"] for row in rows} == {"block", "denoiser", "pipeline"}
    assert all(row["speedup"] == [1, 1, 1] for row in rows if row["weights"] == "dense")
    work = {(row["weights"], row["prompts"]): row for row in rows if row["what"] == "denoiser"}
    dense, zeros, small = (work[name, 2] for name in ("dense", "2:4", "structured=0.5"))
    assert zeros["flops"] == dense["flops"] == dense["ideal_flops"] > zeros["ideal_flops"]
    assert small["flops"] == small["ideal_flops"] < dense["flops"] and small["memory"] < zeros["memory"]
    assert work["dense", 1]["flops"] < dense["flops"]
    about = dict.fromkeys(("model", "dtype", "device", "threads", "torch", "diffusers", "rounds"), "x")
    about |= {"pipeline_rounds": 1, "arguments": ""}
    text = markdown(json.loads(json.dumps({"about": about, "timings": rows, "variants": []})))
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(rows) + 2


@pytest.mark.parametrize("name", [n for n in registry.names("obsdiff.models") if n in ("sd3", "flux")])
def test_kernels_times_every_pattern_and_says_what_a_device_refuses(name, monkeypatch):
    family = registry.load("obsdiff.models", name)
    denoiser = getattr(family.tiny(), family.TRAITS.denoiser).eval()
    before = {key: tensor.clone() for key, tensor in denoiser.state_dict().items()}
    monkeypatch.setattr(kernels, "random_denoiser", lambda *_: (family, denoiser, SAMPLING))
    rows = kernels.rows_of("m", "cpu", torch.float32, 32, 2, 1, None)
    assert [row[:3] for row in rows] == [["m", "dense", "dense"], *(["m", p, "dense"] for p in kernels.PATTERNS[:2]),
        ["m", "2:4", "2:4"], *(["m", p, "dense"] for p in kernels.PATTERNS[2:])]  # fmt: skip
    assert rows[3][-1].startswith("kernels for 2:4 run on CUDA")
    assert all(torch.equal(tensor, before[key]) for key, tensor in denoiser.state_dict().items())


def test_effective_share_of_weights():
    from benchmarks.token_weights import effective

    assert effective([torch.full((2, 3), 0.4), torch.full((5,), 0.4)]) == pytest.approx(1.0)
    assert effective([torch.tensor([0.0, 0.0, 0.0, 3.0])]) == pytest.approx(0.25)
