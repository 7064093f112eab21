"""A pipeline without weights that can be called: its shapes, calls and FLOPs, from configurations and tokenizers alone.

A parameter is a single zero that stands in all places. Operations on large tensors are not computed: their results are
such zeros of the right shape. Small tensors, integers and masks are computed as ever, so that prompts are tokenized,
masks have their lengths, and a scheduler has its timesteps.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from obsdiff.errors import SpecError
from obsdiff.flops import Counting
from obsdiff.pipelines import components
from obsdiff.pipelines.loading import absent, assemble, load_component
from obsdiff.pipelines.sources import AGAIN, INDEX, configured, read_record
from obsdiff.source import Source

SMALL = 2**14
"""numbers of the largest tensor of an operation that is computed"""


def hollow_pipeline(source: Source) -> Any:
    """A model's pipeline, its networks without weights.

    Raises:
        SpecError: a configuration or a tokenizer is not on this machine, or does not belong to its class.
    """
    folder = configured(source)
    index = read_record(folder / INDEX)
    parts: dict[str, Any] = dict.fromkeys(source.without) | absent(folder)
    for name, (library, kind) in components.components(index).items():
        if name not in source.without:
            cls = components.class_of(name, library, kind)
            is_network = issubclass(cls, nn.Module)
            parts[name] = hollow_network(folder, name, cls, source) if is_network else tool(folder, name, cls, source)
    return assemble(folder, index, parts)


def tool(folder: Path, name: str, cls: Any, source: Source) -> Any:
    """A scheduler or a tokenizer."""
    if not (folder / name).is_dir():
        raise SpecError(f"model: {folder} has no folder {name}, which its {INDEX} lists; {AGAIN}")
    return load_component(folder, name, cls, source)


def hollow_network(folder: Path, name: str, cls: Any, source: Source) -> nn.Module:
    """A network of a configuration; buffers, and tensors that are neither, are those that its constructor makes."""
    from accelerate import init_empty_weights

    config = read_record(folder / name / "config.json")
    components.check_kind(folder / name, cls, config)
    dtype: torch.dtype = getattr(torch, source.dtype)
    with components.explained(name, folder), init_empty_weights(include_buffers=False):
        network = components.empty(cls, folder / name, config)
    for module in network.modules():
        for key, parameter in module.named_parameters(recurse=False):
            zeros = nn.Parameter(torch.zeros(1, dtype=dtype).expand(parameter.shape), requires_grad=False)
            module.register_parameter(key, zeros)
        for key, buffer in module.named_buffers(recurse=False):
            module._buffers[key] = buffer.to(dtype) if buffer.is_floating_point() else buffer
    return network.eval()


class Hollow(Counting):
    """Inside the block, operations on large tensors give zeros, and FLOPs of all of them are counted."""

    def made(self, func: Any, args: Any, kwargs: Any) -> Any:
        return outline(func, args, kwargs)


def outline(func: Any, args: Any, kwargs: Any) -> Any:
    """The result of an operation, computed only where its tensors are small or its result is not floating-point."""
    given = list(tensors((args, kwargs)))
    aliases = [result.alias_info for result in func._schema.returns if result.alias_info is not None]
    written = any(alias.is_write for alias in aliases)
    large = any(map(is_float, given)) and max(tensor.numel() for tensor in given) > SMALL
    if not large or (aliases and not written):
        return computed(func, args, kwargs)
    if written:
        return args[0] if args else kwargs["self"]
    try:
        made = func(*on_meta(args), **on_meta(kwargs))
    except (NotImplementedError, RuntimeError):  # its result's shape depends on values
        return computed(func, args, kwargs)
    if not all(map(is_float, tensors(made))):
        return computed(func, args, kwargs)
    return tree_map_only(Tensor, lambda tensor: torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape), made)


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """The result of an operation; of some that write to their arguments, a zero in many places is many zeros."""
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        return func(*tree_map_only(Tensor, Tensor.clone, args), **tree_map_only(Tensor, Tensor.clone, kwargs))


def tensors(nested: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor))


def is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def on_meta(nested: Any) -> Any:
    moved = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), nested)
    return tree_map_only(torch.device, lambda _: torch.device("meta"), moved)
