"""Work of one call of a denoiser, counted on the meta device: shapes are all that it needs."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from obsdiff import matrices
from obsdiff.flops import Counting
from obsdiff.matrices import Layer
from obsdiff.observing import Stop, counting
from obsdiff.pipelines.hollow import Hollow
from obsdiff.sampling import Sampling, run_pipeline
from obsdiff.spec import PruneSpec

aten = torch.ops.aten
POINTWISE = {aten.add, aten.mul, aten.silu, aten.gelu}
PAPER_TOKENS = 77
PAPER_MULTIPLY_ADD = {"transformer": 1, "unet": 2}
"""denoiser → FLOPs of a multiply-add in the paper's tables 4 and 9, and 3"""


class Work(NamedTuple):
    """Of one call for one prompt, its unguided half included; 2 FLOPs a multiply-add."""

    total: int
    attention: int
    """FLOPs of the products of queries, keys and values"""
    by_layer: dict[str, int]
    """FLOPs of the linear layers"""
    rows: dict[str, int]
    """how many rows (tokens, or one an example) each linear layer reads"""
    widest: int
    """numbers that the layer with the most reads and writes"""
    batch: int
    """examples that a prompt makes: 2 where it is guided by a second one without text"""
    encode: int | None = None
    """FLOPs of the prompt's text encoders, where they were counted"""


class Products(Counting):
    """Counts on the meta device, in little time."""

    def made(self, func: Any, args: Any, kwargs: Any) -> Any:
        found = None if kwargs else outline(func._overloadpacket, args)
        return func(*args, **kwargs) if found is None else found


def outline(packet: Any, args: Any) -> Tensor | None:
    """The result of frequent operations, whose meta kernels are slow Python; None of others."""
    if packet is aten.addmm or packet is aten.mm:
        left, right = args[-2:]
        return left.new_empty(left.shape[0], right.shape[1]) if left.dtype == right.dtype else None
    if packet in POINTWISE and all(isinstance(arg, Tensor) for arg in args):
        first, *others = args
        if all(other.dtype == first.dtype for other in others):
            shape: torch.Size = torch.broadcast_shapes(*(arg.shape for arg in args))
            return torch.empty(shape, dtype=first.dtype, device=first.device)
    return None


def own_side(denoiser: nn.Module) -> int:
    """Side of the latents where no size is asked for; FluxTransformer2DModel's configuration does not say it."""
    side: int = getattr(denoiser.config, "sample_size", 128)
    return side


def count_flops(family: Any, denoiser: nn.Module, spec: PruneSpec, vae: dict[str, Any]) -> Work:
    """Of a call for one prompt as the spec samples.

    Args:
        denoiser: on the meta device.
        vae: its configuration.
    """
    sampling = spec.sampling
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    side = own_side(denoiser)
    sides = (given // scale if given else side for given in (sampling.height, sampling.width))
    return work_of(denoiser, family.example(denoiser, *sides, sampling))


def paper_flops(family: Any, denoiser: nn.Module) -> int:
    """Work of one call as the OBS-Diff paper's tables count it (docs/paper.md), in its "FLOPs".

    The call is unguided, for one prompt, on the pipeline's own size (1024² for Stable Diffusion 3, 3.5 and XL), with 77
    text tokens, and attention's own products are left out. A multiply-add is one for transformers and two for UNets.

    Args:
        denoiser: on the meta device, dense or with heads and neurons removed.
    """
    side = own_side(denoiser)
    tokens = PAPER_TOKENS - getattr(family, "CLIP_TOKENS", 0)
    unguided = Sampling(guidance_scale=1.0, max_sequence_length=tokens)
    work = work_of(denoiser, family.example(denoiser, side, side, unguided))
    return (work.total - work.attention) * PAPER_MULTIPLY_ADD[family.TRAITS.denoiser] // 2


def work_of(denoiser: nn.Module, arguments: dict[str, Any]) -> Work:
    """Of a call with these arguments, both on the meta device."""
    with Read(denoiser) as read, Products() as counter, torch.no_grad():
        denoiser(**arguments)
    batch = next(len(value) for value in arguments.values() if isinstance(value, Tensor))
    return read.work(counter.flops, batch)


def work_of_pipeline(pipe: Any, denoiser: nn.Module, sampling: Sampling) -> Work:
    """Of the calls in the first step for one prompt, without computing them.

    Args:
        pipe: without weights (pipelines/hollow.py).
    """
    encoders: dict[str, int] = {}
    batch = [0]

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not batch[0]:
            encoders.update(counter.flops)
            given = (*args, *kwargs.values())
            batch[0] = next(len(x) for x in given if isinstance(x, list) or (isinstance(x, Tensor) and x.dim()))
        else:
            batch[0] += 1

    def stop(*_: Any) -> None:
        raise Stop

    with Read(denoiser) as read, Hollow() as counter, torch.no_grad(), suppress(Stop), counting(pipe, stop):
        handle = denoiser.register_forward_pre_hook(begin, with_kwargs=True)
        try:
            run_pipeline(pipe, {"prompt": ["a"]}, sampling, ["a"], 0)
        finally:
            handle.remove()
    flops = {name: count - encoders.get(name, 0) for name, count in counter.flops.items()}
    return read.work(flops, batch[0])._replace(encode=sum(encoders.values()))


class Read:
    """For the block of the `with` statement, what the linear layers and 1×1 convolutions of a denoiser read."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.denoiser = denoiser
        self.by_layer: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.widest = 0

    def __enter__(self) -> "Read":
        layers = ((name, module) for name, module in self.denoiser.named_modules() if matrices.is_layer(module))
        hooks = ((module, partial(self.note, name)) for name, module in layers)
        self.handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in hooks]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def note(self, name: str, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows, columns = matrices.shape(layer)
        count = (args[0] if args else kwargs["input"]).numel() // columns
        self.rows[name] = self.rows.get(name, 0) + count
        self.by_layer[name] = self.by_layer.get(name, 0) + 2 * count * columns * rows
        self.widest = max(self.widest, count * (columns + rows))

    def work(self, flops: Mapping[str, int], batch: int) -> Work:
        """With FLOPs by operation."""
        attention = sum(count for name, count in flops.items() if "bmm" in name or "attention" in name)
        return Work(sum(flops.values()), attention, self.by_layer, self.rows, self.widest, batch)
