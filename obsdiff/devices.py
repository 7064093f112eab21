"""Devices by name, checked before any weights load, and how float32 is computed on a GPU. Imports torch when called."""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from obsdiff import onednn
from obsdiff.errors import SpecError

if TYPE_CHECKING:
    import torch

NAMES = r"cpu|cuda(:\d+)?"
TF32 = False
"""whether float32 products may be computed in TensorFloat-32, as manifests and profiles record it"""


def check(device: str, key: str = "device") -> None:
    """Raise SpecError where this is not the name of a device that obsdiff can run on; torch is not imported.

    Args:
        key: what holds the name, for the message.
    """
    if str(device).startswith("mps"):
        raise SpecError(f"{key}: {device!r} has no float64, which structured pruning and FID need; give cpu")
    if not re.fullmatch(NAMES, str(device)):
        raise SpecError(f"{key}: {device!r} is not cpu, cuda or cuda:N (the GPU of index N)")


def require(device: str) -> None:
    """Raise SpecError where this machine, as torch sees it, does not have the device; no weights load for that.

    Args:
        device: as Source.device.
    """

    check(device)
    if device.startswith("cuda"):
        count, why, way = gpus()
        if not count:
            raise SpecError(f"device: {device!r}: this torch sees no GPU ({why}); give device: cpu, {way}")
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise SpecError(f"device: {device!r}: this torch sees {there}; give device: cuda")


def gpus() -> tuple[int, str, str]:
    """How many GPUs torch can use; where it is none, why, and what would help."""
    import torch

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if torch.version.cuda is None and torch.version.hip is None:
        return count, "CPU build", "or install a torch that is built for CUDA"
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None and listed.strip() in ("", "-1"):
        return count, f"CUDA_VISIBLE_DEVICES is {listed!r}", "or unset CUDA_VISIBLE_DEVICES"
    said = " ".join(str(told[0].message).split()) if told else "no driver"
    return count, said, "or see whether `nvidia-smi` lists one"


def require_whole(offload: str) -> None:
    """Raise SpecError where a denoiser's layers have no weights between calls, to prune, to profile or to replace.

    Args:
        offload: as Source.offload.
    """
    if offload == "sequential":
        raise SpecError(
            "offload: 'sequential' leaves layers without weights between calls, so nothing can be pruned, profiled or "
            "loaded into them; load a checkpoint before the offload, profile and prune with offload: model"
        )


def synchronize(device: "torch.device") -> None:
    """Wait until the device has done what it was given, so that a clock can be read."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def reset_peak_memory(device: "torch.device") -> None:
    """Count a GPU's peak memory from here on; also where nothing has been on it yet."""
    if device.type == "cuda":
        import torch

        synchronize(device)  # starts CUDA, without which the allocator does not know the device, and raises
        torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def stated_precision(smallest: int | None = onednn.LARGE) -> Iterator[None]:
    """float32 is float32 for the block, and cuDNN takes the same kernels in every run; afterwards all is as it was.

    By default torch computes float32 convolutions in TensorFloat-32 (10 bits of mantissa) on a GPU that has it, and
    matrix products too where the process allowed that, on a CPU with AMX in bfloat16.

    Args:
        smallest: of a CPU's products that oneDNN takes, as onednn.products(); None where torch's own are to be timed.
    """
    import torch

    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    matmul: Any = torch.backends.cuda.matmul
    parts = [matmul, *(getattr(of, op) for of in (cudnn, mkldnn) for op in ("conv", "rnn"))]
    stated: list[tuple[Any, str, Any]] = [
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
        (cudnn, "allow_tf32", TF32),
        (matmul, "allow_fp16_accumulation", False),
    ]
    stated += [(part, "fp32_precision", "ieee") for part in (*parts, mkldnn.matmul)]
    with chosen("highest", stated), onednn.products(smallest) if smallest else nullcontext():
        yield


@contextmanager
def tensor_float32() -> Iterator[None]:
    """A GPU's float32 products are in TensorFloat-32 for the block: for factors that it holds exactly."""
    import torch

    backends: Any = torch.backends
    with chosen("high", [(part, "fp32_precision", "tf32") for part in (backends.cuda.matmul, backends.mkldnn.matmul)]):
        yield


@contextmanager
def chosen(precision: str, stated: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """torch's choice of precision for the block, by its older and its newer interface, which must not disagree."""
    import torch

    before = [(part, name, known(partial(getattr, part, name))) for part, name, _ in stated]
    products = known(torch.get_float32_matmul_precision)
    try:
        torch.set_float32_matmul_precision(precision)
        for part, name, value in stated:
            setattr(part, name, value)
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for part, name, value in before:
            if value is not None:
                setattr(part, name, value)


def known(read: Callable[[], Any]) -> Any:
    """A choice of torch; None where its two interfaces were given different ones, and the older one will not tell."""
    try:
        return read()
    except RuntimeError:
        return None
