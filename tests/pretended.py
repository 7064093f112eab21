"""A pretended GPU: tensors in main memory of which some say that they are on `cuda:0`, and refuse to meet the others.

Two modes share the record of what is where, by storage, so that views and parameters need no attention. The function
mode answers what Python asks (`tensor.device`, `.to`, `device=`); the dispatch mode sees every operation, raises where
CUDA would, and puts results where their inputs are. Kernels are the CPU's, so numbers are real, and the CPU's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from weakref import WeakSet

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
aten = torch.ops.aten
MIXES = {aten.copy_.default, aten._foreach_copy_.default, aten.set_.source_Tensor}
"""operations that take tensors of two devices"""
INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""those whose indices may be in main memory"""
STRICT = {aten.cat.default, aten.stack.default}
"""those that take no number of the CPU beside CUDA tensors"""
WAITS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}
"""those for which the CPU waits until the GPU is done"""
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.convolution.default}
PRODUCTS |= {aten.bmm.default, aten.baddbmm.default, aten.baddbmm_.default}
"""those that a GPU may compute in TF32"""
HALVES = {
    aten.addmm.dtype_out: lambda sums, a, b, dtype, **rest: torch.addmm(sums, a.to(dtype), b.to(dtype), **rest),
    aten.mm.dtype: lambda a, b, dtype: a.to(dtype) @ b.to(dtype),
}
"""half × half → float32, which no CPU kernel does"""


class MixedDevices(RuntimeError):
    """Tensors of two devices met."""


def device_of(value: Any) -> torch.device | None:
    """A device argument as CUDA reports it; None where the value is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"cuda:{value}"
    try:
        found = torch.device(value) if isinstance(value, str | torch.device) else None
    except RuntimeError:  # a string that is no device
        return None
    return CUDA if found is not None and found.type == "cuda" else found


def tensors(tree: Any) -> list[Tensor]:
    """Of what operations take and give; torch's own pytree needs half the time of all that is pretended."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [tensor for part in tree for tensor in tensors(part)]


class Gpu:
    """What is on the pretended GPU.

    Attributes:
        begun: whether anything has been on it, which its allocator must know.
        waits: how often the CPU has waited for it.
        synchronized: how often Python has asked to wait for all that was begun.
        precisions: what float32 products and convolutions were computed in.
        halves: how many products of halves went into float32.
    """

    def __init__(self) -> None:
        self.storages: WeakSet[torch.UntypedStorage] = WeakSet()
        self.waits = self.synchronized = self.halves = 0
        self.begun = False
        self.precisions: set[str] = set()
        self.inside: list[torch.device] = []

    def place(self, tensor: Tensor) -> torch.device:
        with torch._C.DisableTorchFunction():
            real = tensor.device
            if real.type != "cpu" or tensor.layout != torch.strided:
                return real
            return CUDA if tensor.untyped_storage() in self.storages else real

    def put(self, tree: Any, place: torch.device) -> None:
        """Say where new tensors are."""
        self.begun |= place == CUDA
        with torch._C.DisableTorchFunction():
            for tensor in tensors(tree):
                if tensor.device.type == "cpu":
                    (self.storages.add if place == CUDA else self.storages.discard)(tensor.untyped_storage())

    def moved(self, tensor: Tensor, place: torch.device, dtype: torch.dtype | None, copy: bool = False) -> Tensor:
        """What `tensor.to(place, dtype)` gives."""
        if place.type == "meta":
            return tensor.to(place, dtype or tensor.dtype)
        before = self.place(tensor)
        made = tensor.to(dtype or tensor.dtype)
        if before.type == "meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        if before != place or copy:
            made = made.clone() if made.data_ptr() == tensor.data_ptr() else made
            self.waits += before == CUDA
        self.put(made, place)
        return made


class Asked(TorchFunctionMode):
    """Answers and obeys what Python code says about devices."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu, name = dict(kwargs or {}), self.gpu, getattr(func, "__name__", "")
        owner = getattr(func, "__self__", None)
        if name == "__get__" and owner is torch.Tensor.device:
            return gpu.place(args[0])
        if name == "__get__" and owner is torch.Tensor.is_cuda:
            return gpu.place(args[0]) == CUDA
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and gpu.place(args[0]) == CUDA:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda, torch.as_tensor, torch.asarray):
            return self.to(func, args, kwargs)
        asked = device_of(kwargs.get("device"))
        given = [gpu.place(t) for t in tensors((args, kwargs)) if t.dim() or not isinstance(t, torch.nn.Parameter)]
        place = asked or (CUDA if CUDA in given else CPU)
        generator = kwargs.get("generator")
        if place == CUDA and isinstance(generator, torch.Generator) and generator.device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if asked == CUDA:
            kwargs["device"] = CPU
        gpu.inside.append(place)
        try:
            made = func(*args, **kwargs)
        finally:
            gpu.inside.pop()
        if asked == CUDA:
            gpu.put(made, CUDA)
        return made

    def to(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        value, *rest = args
        if not isinstance(value, Tensor):
            asked = device_of(kwargs.pop("device", None)) or CPU
            made = func(value, *rest, **kwargs)
            return self.gpu.moved(made, asked, None)
        options = [*rest, *kwargs.values()]
        place = {torch.Tensor.cpu: CPU, torch.Tensor.cuda: CUDA}.get(func)
        dtype = next((o for o in options if isinstance(o, torch.dtype)), None)
        for option in options:
            if isinstance(option, Tensor):
                place, dtype = self.gpu.place(option), option.dtype
            elif not isinstance(option, bool | torch.dtype):
                place = device_of(option) or place
        return self.gpu.moved(value, place or self.gpu.place(value), dtype, bool(kwargs.get("copy")))


class Seen(TorchDispatchMode):
    """Sees every operation."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, given = self.gpu, tensors((args, kwargs))
        places = {gpu.place(t) for t in given if t.dim() or func in STRICT or gpu.place(t) != CPU}
        place = CUDA if CUDA in places else CPU if given or not gpu.inside else gpu.inside[-1]
        if func in INDEXES:
            place = gpu.place(args[0])
            if place == CPU and CUDA in places:
                raise MixedDevices(f"{func}: a tensor in main memory with indices on the GPU")
        elif {CPU, CUDA} <= places and func not in MIXES:
            raise MixedDevices(
                f"{func}: expected all tensors to be on the same device: {[gpu.place(t) for t in given]}"
            )
        masked = func in INDEXES and any(t.dtype == torch.bool for t in tensors(args[1]))
        gpu.waits += CUDA in places and (func in WAITS or masked)
        if func in PRODUCTS and place == CUDA and given[0].dtype == torch.float32:
            backends = torch.backends
            gpu.precisions |= {backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision}
        known = {t.untyped_storage()._cdata for t in given}
        if func in HALVES and place == CUDA:
            gpu.halves += 1
            func = HALVES[func]
        made = func(*args, **(kwargs or {}))
        gpu.put([t for t in tensors(made) if t.untyped_storage()._cdata not in known], place)
        return made


@contextmanager
def machine() -> Iterator[Gpu]:
    """A machine with one GPU, for the block."""
    made = Gpu()

    def synchronize(device: Any = None) -> None:
        made.synchronized += 1
        made.begun = True

    def reset(device: Any = None) -> None:
        if not made.begun:
            raise RuntimeError("Allocator not initialized for device 0: did you call init?")

    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "Pretended GPU",
        "empty_cache": lambda: None,
        "synchronize": synchronize,
        "reset_peak_memory_stats": reset,
        "memory_allocated": lambda device=None: 1 << 20,
        "max_memory_allocated": lambda device=None: 3 << 20,
    }
    with (
        patch.multiple(torch.cuda, **answers),
        patch.multiple(torch.accelerator, synchronize=synchronize),
        patch.object(torch.version, "cuda", "13.0"),
        patch("obsdiff.solver.obs.kernels", lambda tensor: False),
        Seen(made),
        Asked(made),
    ):
        yield made
