"""Calls that were stopped in the middle, and where what they hold stays until they go on.

A stopped call is a coroutine (a greenlet) whose Python frames hold its activations. On a CPU these stay where they
are; otherwise the bytes of every storage that it holds are copied away (to host memory or into a file), the storages
shrunk to nothing, and filled again before the call goes on. Views and shapes are untouched by that, so the call cannot
tell, and the result is the same to the bit.
"""

import errno
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor, UntypedStorage, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from obsdiff.calibration.calls import Call
from obsdiff.errors import LayerError


class Watch(TorchDispatchMode):
    """Knows the storages that are made while it is on, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and tensor.numel() and not tensor.untyped_storage().nbytes():
                raise LayerError(
                    f"{func}: reads a tensor of another call, which this denoiser keeps between calls, so that "
                    "packages: sequential needs all of them in memory; raise trajectory_memory or give another value"
                )
        result = func(*args, **(kwargs or {}))
        self.see(result)
        return result

    def see(self, nested: Any) -> None:
        for tensor in tree_leaves(nested):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.made[storage._cdata] = StorageWeakRef(storage)

    def alive(self, lasting: set[int]) -> list[UntypedStorage]:
        """The storages that are still held, but for the lasting ones.

        Args:
            lasting: of what outlives the call: weights, and inputs that calls share; by their address.
        """
        self.made = {key: ref for key, ref in self.made.items() if not ref.expired()}
        found = [UntypedStorage._new_with_weak_ptr(ref.cdata) for key, ref in self.made.items() if key not in lasting]
        return [storage for storage in found if storage is not None and storage.nbytes() and storage.resizable()]


def flat(storage: UntypedStorage) -> Tensor:
    """A storage's bytes, (n,) uint8, shared."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


class Stopped:
    """A call that goes on from stop to stop.

    Attributes:
        call: which.
        watch: knows what it holds; None where nothing asks.
        shared: addresses of the storages of inputs that other calls have too.
        in_memory, on_device: bytes that it is reckoned to hold in host memory, and on a GPU.
    """

    def __init__(self, call: Call, watched: bool) -> None:
        self.call = call
        self.watch: Watch | None = Watch() if watched else None
        self.fibre: greenlet | None = None
        self.shared: set[int] = set()
        self.in_memory = self.on_device = 0
        self.away: list[tuple[UntypedStorage, int, Tensor | None]] = []
        self.file: Path | None = None

    @property
    def begun(self) -> bool:
        return self.fibre is not None

    @property
    def over(self) -> bool:
        """Whether it ran to its end."""
        return self.fibre is not None and self.fibre.dead

    def go(self, denoiser: nn.Module, args: Any = (), kwargs: Any = None) -> Any:
        """Run from the start, or from where it waits, to the next stop.

        Returns:
            What stop() was given there; the denoiser's output where there was no stop any more.
        """
        self.come_back()
        with self.watch or nullcontext():
            if self.fibre is not None:
                return self.fibre.switch()
            self.fibre = greenlet(denoiser)
            return self.fibre.switch(*args, **(kwargs or {}))

    def leave(self, lasting: set[int], file: Path | None) -> None:
        """Move what it holds to host memory, or into a file.

        Args:
            lasting: as of Watch.alive().

        Raises:
            OSError: the disk is full.
        """
        assert self.watch is not None
        storages = self.watch.alive(lasting)
        self.file = file
        with file.open("wb") if file else nullcontext() as stream:
            for storage in storages:
                held = flat(storage).to("cpu", copy=True)  # a storage that NumPy has seen cannot be resized
                if stream is not None:
                    stream.write(held.numpy().data)
                self.away.append((storage, storage.nbytes(), None if file else held))
        for storage in storages:
            storage.resize_(0)

    def come_back(self) -> None:
        """Fill what left again."""
        with self.file.open("rb") if self.file else nullcontext() as stream:
            for storage, size, held in self.away:
                storage.resize_(size)
                if stream is not None:
                    held = torch.empty(size, dtype=torch.uint8)
                    if stream.readinto(held.numpy().data) != size:
                        raise OSError(errno.EIO, "cut short while it was in use", str(self.file))
                assert held is not None
                flat(storage).copy_(held)
        self.forget()

    def forget(self) -> None:
        """Free what left."""
        self.away = []
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            self.file = None

    def drop(self, watched: bool = False) -> None:
        """End it where it is; go() begins at the start again."""
        if self.fibre is not None and not self.fibre.dead:
            self.fibre.throw(GreenletExit)
        self.forget()
        self.fibre = None
        self.watch = Watch() if watched else None


def stop(seen: Any) -> None:
    """Called from inside a call: wait here until it is to go on, and let whoever let it run have `seen`."""
    parent = getcurrent().parent
    assert parent is not None
    parent.switch(seen)


def lasting(denoiser: nn.Module) -> Iterator[int]:
    """Addresses of the storages of a denoiser's parameters and buffers."""
    for tensor in (*denoiser.parameters(), *denoiser.buffers()):
        yield tensor.untyped_storage()._cdata
