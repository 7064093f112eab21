"""Devices by name, the precision of float32, and what judges images on a pretended GPU."""

import warnings
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pytest
import torch
from conftest import SAMPLING
from PIL import Image
from pretended import CUDA, machine
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchmetrics.functional.image.lpips import _LPIPS

from benchmarks import solver
from benchmarks.candidates import spec_of
from benchmarks.latency import judged, point
from benchmarks.latency import main as bench
from eval.commands import latency, measure, profile
from eval.image_metrics import Images
from eval.images.image_files import ImageFiles
from eval.images.views import VIEWS, View
from eval.network_weights import CLIPS
from eval.networks import inception, lpips
from eval.networks.features import Evaluator
from eval.networks.inception import Inception
from eval.profile.machine import machine as described
from obsdiff import SpecError, devices, load_pruned, prune, registry
from obsdiff.checkpoints.swapping import taken_off
from obsdiff.commands.prune import run as command
from obsdiff.patterns import n_m, unstructured
from obsdiff.pipelines.loading import place
from obsdiff.sampling import Sampling
from obsdiff.solver import factors, obs
from obsdiff.source import Source
from obsdiff.spec import PruneSpec

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("device", ["banana", "", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "mps", "xpu", "meta", "0"])
def test_names_of_no_device_are_refused(device):
    with pytest.raises(SpecError, match=r"^device: .*(cpu, cuda or cuda:N|give (device: )?cpu)"):
        devices.require(device)


def test_why_there_is_no_gpu_is_said_with_what_to_do(monkeypatch):
    def old_driver() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old\n(found 11)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    refused = partial(pytest.raises, SpecError)
    with refused(match=r"'cuda': .* sees no GPU \(CUDA_VISIBLE_DEVICES is ''\); give device: cpu, or unset CUDA_VIS"):
        devices.require("cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with refused(match=r"'cuda:1': .* sees no GPU \(no driver\); give device: cpu, or see whether `nvidia-smi`"):
        devices.require("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", old_driver)
    with refused(match=r"sees no GPU \(CUDA init.* is too old \(found 11\)\)"):
        devices.require("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with refused(match=r"sees no GPU \(CPU build\); give device: cpu, or install a torch that is built for CUDA"):
        devices.require("cuda")
    devices.require("cpu")


def test_index_out_of_range_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for count, there in ((1, "cuda:0 alone"), (2, "cuda:0 to cuda:1")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        with pytest.raises(SpecError, match=f"'cuda:2': this torch sees {there}; give device: cuda"):
            devices.require("cuda:2")
        for device in ("cuda", f"cuda:{count - 1}"):
            devices.require(device)


def test_jobs_refuse_a_device_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    nothing = tmp_path / "none"
    with pytest.raises(SpecError, match=r"^device: 'cuda': this torch sees no GPU"):
        measure.run(*[nothing] * 5, "zoo/emoji-clip", nothing, nothing, nothing, device="cuda")
    with pytest.raises(SpecError, match=r"^device: 'cuda': this torch sees no GPU"):
        bench(Source(model="/nowhere", device="cuda"), Sampling(), nothing)


def test_sequential_offload_is_refused_before_any_weights_load(tmp_path):
    source = Source(model="/nowhere", device="cuda", offload="sequential")
    nothing = tmp_path / "none"
    for call in (
        lambda: command(source, PruneSpec(method="magnitude"), nothing),
        lambda: profile.run(source, Sampling(), nothing, nothing, nothing),
        lambda: latency.run(source, Sampling(), nothing),
        lambda: bench(source, Sampling(), nothing),
    ):
        with pytest.raises(SpecError, match=r"^offload: 'sequential' .* prune with offload: model"):
            call()
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    pipe.enable_sequential_cpu_offload(device="cpu")
    with pytest.raises(SpecError, match=r"^offload: 'sequential' .* load a checkpoint before pipe"):
        load_pruned(pipe, nothing)


def flags() -> list:
    """What torch says of its precision, through both interfaces; their error where they disagree."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    reads = [torch.get_float32_matmul_precision, lambda: matmul.allow_tf32, lambda: cudnn.allow_tf32]
    reads += [
        partial(getattr, p, "fp32_precision") for p in (matmul, cudnn.conv, cudnn.rnn, torch.backends.mkldnn.matmul)
    ]
    found: list = [cudnn.benchmark, cudnn.deterministic, matmul.allow_fp16_accumulation]
    for read in reads:
        try:
            found.append(read())
        except RuntimeError as error:
            found.append(type(error))
    return found


def new_interface() -> None:
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "tf32"


def old_interface() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True


@pytest.mark.parametrize(
    "chosen",
    [
        lambda: None,
        old_interface,
        new_interface,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    ],
)
def test_precision_is_stated_and_the_process_left_as_it_was(chosen):
    with devices.stated_precision():
        stated = flags()
    try:
        chosen()
        before = flags()
        with pytest.raises(KeyError), devices.stated_precision():
            assert flags() == stated == [False, True, False, "highest", False, False, *["ieee"] * 4]
            raise KeyError
        assert flags() == before
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = False, True
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "tf32"
        for part in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
            part.fp32_precision = "none"


def test_the_sweep_does_not_wait_for_the_gpu_at_every_column():
    waits = []
    with machine() as gpu, devices.stated_precision():
        for columns in (32, 128):
            x, weight = torch.randn(256, columns, device="cuda"), torch.randn(16, columns, device="cuda")
            for select, stride in (
                (lambda scores, start: unstructured.keep(scores, 0.5, "block", start), None),
                (lambda scores, start: n_m.keep(scores, 0.5, "row", start, n=2, m=4), 4),
            ):
                before = gpu.waits
                pruned, keep, _ = obs.sweep(weight, factors.factor(x.T @ x), select, 64, stride)
                waits.append(gpu.waits - before)
                assert pruned.device == keep.device == CUDA and int((~keep).sum()) == 8 * columns
    assert max(waits) < 16, "one column makes the CPU wait"


class Held(TorchDispatchMode):
    """Counts the bytes of tensors that operations have made and that are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: WeakValueDictionary[int, torch.UntypedStorage] = WeakValueDictionary()
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        for t in tree_leaves(found):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in given:
                self.alive[t.untyped_storage()._cdata] = t.untyped_storage()
        self.peak = max(self.peak, sum(s.nbytes() for s in self.alive.values()))
        return found


def test_factor_takes_three_matrices_beside_the_hessian():
    columns = 1024
    x = torch.randn(64, columns, generator=torch.Generator().manual_seed(0))
    hessian = x.T @ x
    with Held() as held:
        factors.factor(hessian)
    assert 2 * hessian.nbytes < held.peak <= 3.01 * hessian.nbytes


def drawn(folder: Path, seed: int) -> ImageFiles:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for i in range(5):
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return ImageFiles(sorted(folder.glob("*.png")))


def pictures(folder: Path, device: str, network: Path, clip: Path) -> Images:
    """Five images, with features that the device has computed."""
    own, dense = ImageFiles(sorted((folder / "own").glob("*"))), ImageFiles(sorted((folder / "dense").glob("*")))
    judge = Evaluator(str(ROOT / "zoo/emoji-clip"), folder / device, device)
    other = Inception(f"inception:{network}", folder / device, device)
    captions = ("a cat", "a dog", "a sun", "two", "red")
    return Images(
        files=own,
        dense_files=dense,
        texts=captions,
        features=judge.images(own),
        dense_features=judge.images(dense),
        captions=judge.captions(captions),
        fid_features=other.images(own),
        reference=other.images(dense),
        real_features=judge.images(dense),
        cache=folder / device,
        references={kind: other.images(dense.seen_as(View(kind, (16, 16)))) for kind in VIEWS}
        | {"paired": other.images(dense)},
        judges={"lpips": "squeeze", "hps": str(ROOT / "zoo/emoji-clip")} | dict.fromkeys(CLIPS, str(clip)),
        device=device,
    )


def test_images_are_judged_on_the_gpu_with_the_same_numbers(tmp_path, clip_folder, monkeypatch):
    torch.manual_seed(0)
    net = _LPIPS(net="squeeze", pnet_rand=True).eval()
    monkeypatch.setattr(lpips, "lpips_weights", lambda name: tmp_path / "network")
    monkeypatch.setattr(lpips, "load", lambda *_: net)
    monkeypatch.setattr(inception, "inception_weights", lambda name: tmp_path / "network")
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    monkeypatch.setattr(Inception, "load", lambda self: pooled.to(self.device))
    (tmp_path / "network").write_text("")
    drawn(tmp_path / "own", 0), drawn(tmp_path / "dense", 1)
    names = [n for n in registry.names("eval.image_metrics") if n != "image_reward"]
    found = {}
    with machine() as gpu, devices.stated_precision():
        for device in ("cpu", "cuda"):
            seen = pictures(tmp_path, device, tmp_path / "network", clip_folder)
            assert {t.device for pair in seen.pairs() for t in pair} == {torch.empty(0, device=device).device}
            assert not gpu.storages or device == "cuda"
            found[device] = {n: registry.load("eval.image_metrics", n).compute(seen) for n in names}
    assert found["cpu"] == found["cuda"] and len(names) > 6
    assert gpu.waits and gpu.precisions == {"ieee"}


def test_solver_benchmark_runs_on_the_gpu():
    with machine() as gpu:
        records = solver.measure(16, 64, "cuda", repeats=1)
        assert gpu.waits and all(record["buffers"] is not None for record in records)
    alike = zip(records, solver.measure(16, 64, "cpu", repeats=1), strict=True)
    assert all(a["error"] == pytest.approx(b["error"], rel=1e-4) and a["same"] == b["same"] for a, b in alike)


def test_latency_benchmark_runs_under_offload():
    with machine() as gpu:
        family = registry.load("obsdiff.models", "sd3")
        pipe = family.tiny()
        place(pipe, Source(model="tiny", device="cuda", offload="model"))
        weights = {t: taken_off(pipe, lambda t=t: prune(pipe, spec_of(t))) for t in ("2:4", "structured=0.5")}
        rows = point(pipe, weights, SAMPLING, 1, rounds=1, pipelines=1)
        assert {(row["weights"], row["what"]) for row in rows} == {
            (name, what) for name in ("dense", *weights) for what in ("block", "denoiser", "pipeline")
        }
        assert all(row["memory"] > 2 << 20 for row in rows if row["what"] == "denoiser")
        rows = judged(pipe, weights, SAMPLING, 1, ("semi_structured",), 1)
        assert all("float16 and bfloat16" in row["verdict"] for row in rows), "CUDA weights were not seen"
        about = described(Source(model="tiny", device="cuda", dtype="float16"))
    assert about == {"device": "Pretended GPU", "dtype": "float16", "tf32": False} and gpu.waits
