"""Every path of a GPU run, on a pretended GPU: nothing meets a tensor on another device, and numbers are the CPU's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import PROMPTS, SAMPLING, combinations, entries, spec_of
from pretended import CPU, CUDA, Gpu, MixedDevices, machine
from torch import nn

from eval.images.generate import generate
from eval.profile.deviation import deviation
from eval.profile.latency import latency
from eval.profile.layers import counts, layer_errors
from eval.profile.work import work
from obsdiff import models, prune, registry, save_pruned
from obsdiff.calibration.runs import Calibration
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.checkpoint import read_pruned
from obsdiff.pipelines.guard import offload_of
from obsdiff.pipelines.identity import identity_of
from obsdiff.pipelines.loading import place
from obsdiff.pipelines.staging import denoising
from obsdiff.source import Source

TWO = [Prompt("0", "a cat"), Prompt("1", "a dog")]
SHORT = replace(SAMPLING, steps=2)
ON_GPU = ("none", "model")


@contextmanager
def pretended() -> Iterator[Gpu]:
    """A machine with a GPU, for the block: what is to be compared with it is cheaper outside."""
    with machine() as found:
        yield found
    assert found.precisions <= {"ieee"}, "something was computed without a stated precision"


@pytest.fixture
def gpu():
    with pretended() as found:
        yield found


def placed(family, offload: str, dtype: torch.dtype = torch.float32):
    pipe = family.tiny().to(dtype)
    place(pipe, Source(model="tiny", device="cuda", offload=offload))
    return pipe


def weights_of(pipe) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in models.denoiser_of(pipe).state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def as_found(pipe, offload: str) -> bool:
    """Whether components and hooks are where the source's offload puts them."""
    places = {c.device for c in pipe.components.values() if isinstance(c, nn.Module)}
    hooks = [m for m in models.denoiser_of(pipe).modules() if m._forward_hooks or m._forward_pre_hooks]
    return offload_of(pipe) == offload and places == {CUDA if offload == "none" else CPU} and not hooks


def test_pretended_gpu_refuses_what_cuda_refuses(gpu):
    x, mask = torch.ones(3, device="cuda"), torch.tensor([True, False, True])
    assert x.device == (x * 2).device == (x * torch.tensor(2.0)).device == x[mask].device == x[:2].device == CUDA
    assert torch.cov(torch.rand(3, 5, device="cuda")).device == torch.zeros_like(x).device == x.double().device == CUDA
    assert x.cpu().device == torch.zeros(3).device == CPU and float(x.sum()) == 3
    for mixed in (lambda: x + torch.ones(3), lambda: torch.ones(3)[mask.cuda()], lambda: torch.ones(3) * x.sum()):
        with pytest.raises(MixedDevices):
            mixed()
    with pytest.raises(TypeError, match="to numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="for generator"):
        torch.rand(3, generator=torch.Generator(), device="cuda")
    layer = nn.Linear(3, 3).to("cuda")
    assert layer.weight.device == layer(x).device == CUDA and layer.cpu().weight.device == CPU
    with pytest.raises(MixedDevices):
        layer(x)
    before = gpu.waits
    assert x.sum().item() == 3 and x.cpu() is not x and gpu.waits == before + 2
    gpu.precisions.clear()


def nearly(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Equal up to rounding, which may move a weight that lies on the threshold."""
    assert left.keys() == right.keys()
    a, b = (torch.cat([weights[name].flatten().double() for name in left]) for weights in (left, right))
    return bool((a - b).norm() <= 0.01 * b.norm())


def assert_same_on_the_gpu(family, spec, offload):
    """A model pruned there has the weights of one pruned in main memory, and is where it was.

    Statistics that leave the GPU are added to their sums after each product and not inside it, which rounds otherwise.
    """
    alike = nearly if spec.offload_statistics else same
    plain = family.tiny()
    prune(plain, spec)
    with pretended():
        pipe = placed(family, offload)
        prune(pipe, spec)
        assert as_found(pipe, offload)
        found = weights_of(pipe)
    assert alike(found, weights_of(plain))


@pytest.mark.parametrize(("method", "pattern"), combinations())
def test_every_method_and_pattern_solves_on_the_gpu(method, pattern):
    family = registry.load("obsdiff.models", "sd3")
    few = {"sparsity": 0.1} if pattern == "neurons" else {"sparsity": 0.3} if pattern == "structured" else {}
    small = {"packages": 1, "sampling": SHORT, "prompts": PROMPTS[:2], "exclude": ("transformer_blocks.0.*",)}
    spec = spec_of(method, pattern=pattern, **small | (few if method != "dense" else {}))
    assert_same_on_the_gpu(family, spec, "model")


@pytest.mark.parametrize(
    "more",
    [
        {"method": "obs_diff", "offload_statistics": True, "bias": True},
        {"method": "obs_diff", "pattern": "structured", "sparsity": 0.3, "offload_statistics": True, "bias": True},
        {"method": "obs_diff", "group": "row", "compensate": False},
        {"method": "wanda", "allocation": "owl", "group": "block"},
        {"method": "magnitude", "bias": True, "group": "layer"},
        *({"method": "wanda", "pattern": "structured", "allocation": name} for name in entries("obsdiff.allocations")),
        *(
            {"method": "wanda", "weighting": name, "alphas": (1.0, 2.0) if name == "table" else ()}
            for name in entries("obsdiff.weightings")
        ),
    ],
    ids=lambda more: "-".join(str(value) for value in more.values()),
)
def test_every_option_solves_on_the_gpu(more):
    family = registry.load("obsdiff.models", "flux")
    spec = spec_of(**{"packages": 1, "sampling": SHORT} | more)
    assert_same_on_the_gpu(family, spec, "none")


def test_killed_run_goes_on_on_the_gpu(family, tmp_path, monkeypatch):
    spec = spec_of("obs_diff", pattern="heads", packages=2, bias=True, sampling=SHORT)
    plain = family.tiny()
    prune(plain, spec)
    summed, calls = Calibration.statistics, []

    def dying(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return summed(*args)

    with pretended():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Calibration, "statistics", dying)
            prune(placed(family, "model"), spec, tmp_path / "progress")
        pipe = placed(family, "model")
        report = prune(pipe, spec, tmp_path / "progress")
        save_pruned(pipe, tmp_path / "checkpoint", report)
        assert as_found(pipe, "model")
        assert report.peak_memory_bytes == 3 << 20 and report.as_dict()["tf32"] is False
        found = weights_of(pipe)
    assert same(found, weights_of(plain))
    fresh = family.tiny()
    read_pruned(tmp_path / "checkpoint").install(family, models.denoiser_of(fresh))
    assert same(weights_of(fresh), weights_of(plain))


@pytest.fixture(scope="module", params=entries("obsdiff.models"))
def checkpoint(request, tmp_path_factory) -> SimpleNamespace:
    """A family, what pruning half its heads and neurons wrote, and its profile and images on a CPU."""
    family, folder = registry.load("obsdiff.models", request.param), tmp_path_factory.mktemp(request.param)
    pipe, dense = family.tiny(), family.tiny()
    save_pruned(pipe, folder, prune(pipe, spec_of("magnitude", pattern="structured", bias=True, sampling=SHORT)))
    pruned = read_pruned(folder)
    made = SimpleNamespace(family=family, pruned=pruned, numbers=profiled(dense, pruned))
    made.pictures = pictures(made, folder)
    return made


def profiled(pipe, pruned) -> dict:
    done = work(pipe, pruned, SHORT)
    timed = latency(pipe, pruned, SHORT, rounds=1, seconds=1e-4) | {"memory": done.memory}
    errors = layer_errors(pipe, pruned, TWO, SHORT, 0)
    before = weights_of(pipe)
    record = {"layers": list(map(vars, errors)), "deviation": vars(deviation(pipe, pruned, TWO, SHORT, 0))}
    record |= {"flops": done.flops} | counts(pipe, pruned)
    assert same(before, weights_of(registry.load("obsdiff.models", family_name(pipe)).tiny())), "it was left changed"
    return json.loads(json.dumps(record)) | {"latency": timed}


def family_name(pipe) -> str:
    return models.family_of(pipe).__name__.rpartition(".")[2]


@pytest.mark.parametrize("offload", ON_GPU)
def test_profile_on_the_gpu_says_what_it_says_on_a_cpu(gpu, checkpoint, offload):
    pipe = placed(checkpoint.family, offload)
    found = profiled(pipe, checkpoint.pruned)
    assert as_found(pipe, offload) and gpu.synchronized
    timed, there = found.pop("latency"), {k: v for k, v in checkpoint.numbers.items() if k != "latency"}
    assert found == there
    own = sum(p.numel() * p.element_size() for p in models.denoiser_of(pipe).parameters())
    assert timed["memory"]["pruned"] == own + (2 << 20), "the allocator was not asked"
    assert timed["memory"].keys() == {"dense", "pruned"} and timed["batch"]["size"] == SHORT.batch_size


def test_profile_in_half_precision(gpu, checkpoint):
    pipe = placed(checkpoint.family, "model", torch.bfloat16)
    errors = layer_errors(pipe, checkpoint.pruned, TWO, SHORT, 0)
    found = deviation(pipe, checkpoint.pruned, TWO, SHORT, 0)
    assert all(0 <= e.error < 2 for e in errors) and torch.tensor(found.by_block).isfinite().all()


@pytest.mark.parametrize(("method", "pattern"), [("obs_diff", "unstructured"), ("obs_diff", "heads"), ("dsnot", "2:4")])
def test_pruning_in_half_precision(gpu, method, pattern):
    pipe = placed(registry.load("obsdiff.models", "sd3"), "model", torch.float16)
    report = prune(pipe, spec_of(method, pattern=pattern, packages=1, sampling=SHORT, bias=True))
    assert report.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_images_of_the_gpu(gpu, checkpoint, offload, tmp_path):
    """The same bytes wherever the components are, with the checkpoint installed before."""
    assert pictures(checkpoint, tmp_path, Source(model="tiny", device="cuda", offload=offload)) == checkpoint.pictures
    assert len(set(checkpoint.pictures)) == len(TWO)


def pictures(checkpoint: SimpleNamespace, folder: Path, source: Source | None = None) -> list[bytes]:
    pipe = checkpoint.family.tiny()
    checkpoint.pruned.install(checkpoint.family, models.denoiser_of(pipe))
    drawn = identity_of(pipe)
    if source is not None:
        place(pipe, source)
    generate(pipe, checkpoint.pruned.manifest, TWO, SHORT, 0, folder / "images", drawn=drawn)
    return [(folder / "images" / f"{prompt.id}.png").read_bytes() for prompt in TWO]


@pytest.mark.parametrize("offload", ON_GPU)
def test_the_denoiser_is_alone_while_it_is_profiled(gpu, family, offload):
    pipe = placed(family, offload)

    def encode() -> set[str]:
        return {name for name, c in pipe.components.items() if isinstance(c, nn.Module) and c.device == CUDA}

    with denoising(pipe, encode) as encoding:
        assert encode() == {family.TRAITS.denoiser}
    encoders = {name for name in pipe.components if name.startswith("text_encoder") and getattr(pipe, name)}
    assert encoding == encoders | ({family.TRAITS.denoiser} if offload == "none" else set())
    assert as_found(pipe, offload)
