"""Work of one call, counted rather than timed: FLOPs that kernels do, FLOPs without zeros, memory."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eval.model_metrics import Work
from eval.profile.calls import PROMPT, ready
from obsdiff import devices, matrices, models
from obsdiff.checkpoints.pruned import Pruned
from obsdiff.checkpoints.swapping import swapping
from obsdiff.flops import Counting
from obsdiff.matrices import Layer
from obsdiff.sampling import Sampling


def flops(call: Callable[[], Any]) -> int:
    """FLOPs of a call, 2 a multiply-add (obsdiff/flops.py); a product with zero counts like any other."""
    with Counting() as counter:
        call()
    return sum(counter.flops.values())


def zero_flops(denoiser: nn.Module, names: Iterable[str], call: Callable[[], Any]) -> int:
    """Those of a call's FLOPs that are products with zeros of the weights of these linear layers.

    A kernel that skipped every zero at no cost of its own would do without them; none does.
    """
    counted = [0]
    handles = []
    for name in names:
        layer = models.linear(denoiser, name)
        zeros = layer.weight.numel() - int(layer.weight.count_nonzero())

        def hook(m: Layer, args: tuple[Tensor, ...], zeros: int = zeros) -> None:
            counted[0] += 2 * zeros * (args[0].numel() // matrices.shape(m)[1])

        handles.append(layer.register_forward_pre_hook(hook))
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return counted[0]


def nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


class Alive(TorchDispatchMode):
    """Bytes of the tensors that operations have made and nothing has freed yet; views add none.

    Attributes:
        peak: the most at any one time. An operation's own workspace is not in it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def free(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor):
                self.known.add(given.untyped_storage())
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """The most memory that a call holds beyond what was there before it.

    On a GPU as the allocator counts it, workspaces included. On a CPU, whose allocator does not count, of the tensors
    that operations make (Alive); a process's resident set would mix in libraries and freed pages.
    """
    if device.type == "cuda":
        devices.reset_peak_memory(device)
        before = torch.cuda.memory_allocated(device)
        call()
        devices.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    alive = Alive()
    with alive:
        call()
    return alive.peak


@devices.stated_precision()
@torch.no_grad()
def work(pipe: Any, pruned: Pruned, sampling: Sampling) -> Work:
    """Work of a denoiser call for one prompt, guidance included.

    Args:
        pipe: the dense pipeline; it is dense again afterwards.
    """
    done: dict[str, int] = {}
    memory: dict[str, int] = {}
    denoiser = models.denoiser_of(pipe)
    with ready(pipe, PROMPT, sampling, [1]) as calls, swapping(pipe, {"pruned": pruned}) as install:
        call = calls[1]["denoiser"]
        for which, put in install.items():
            put()
            done[which] = flops(call)
            memory[which] = nbytes(denoiser.parameters()) + peak_bytes(call, denoiser.device)
        done["ideal"] = done["pruned"] - zero_flops(denoiser, pruned.states, call)
    return Work(done, memory)
