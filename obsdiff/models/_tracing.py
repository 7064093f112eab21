"""What makes a channel of a layer's input: gradients in a call of a block whose linear layers are cut apart."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

Rows = dict[str, list[int]]
"""layer → rows of its output"""


@dataclass(frozen=True)
class Call:
    """A block's call, which can be made again and again."""

    block: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, leaves: list[Tensor] | None = None) -> Any:
        """The block's answer.

        Args:
            leaves: gets the tensors that it is called with and that are as wide as a layer's input, as leaves of a
                graph.
        """
        widths = {part.in_features for part in self.block.modules() if isinstance(part, nn.Linear)}

        def copied(x: Tensor) -> Tensor:
            if leaves is None or not x.is_floating_point() or x.shape[-1:].numel() not in widths:
                return x.clone()
            leaves.append(x.detach().clone().requires_grad_())
            return leaves[-1].clone()

        args, kwargs = tree_map_only(Tensor, copied, (self.args, self.kwargs))
        return self.block(*args, **kwargs)


class Probe:
    """One call of a block, in which each linear layer's output is cut from what it is computed from.

    Attributes:
        inputs: layer → its inputs, one per use.
        outputs: layer → its outputs, as leaves of a graph.
        given: the block's own inputs that are as wide as a layer's, as leaves of it.
    """

    def __init__(self, layers: Mapping[str, nn.Linear], call: Call) -> None:
        self.given: list[Tensor] = []
        self.inputs: dict[str, list[Tensor]] = {}
        self.outputs: dict[str, list[Tensor]] = {}
        with torch.enable_grad(), ExitStack() as stack:
            for name, layer in layers.items():

                def hook(_: Any, args: Any, kwargs: Any, out: Tensor, name: str = name) -> Tensor:
                    self.inputs.setdefault(name, []).append(args[0] if args else kwargs["input"])
                    leaf = out.detach().requires_grad_()
                    self.outputs.setdefault(name, []).append(leaf)
                    return leaf.clone()

                stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
            call(self.given)

    def rows(self, layer: str, channel: int) -> Rows:
        """The rows of other layers that a channel of a layer's input comes from."""
        leaves = [(name, leaf) for name, uses in self.outputs.items() for leaf in uses]
        found: dict[str, set[int]] = {}
        for (name, _), slope in zip(leaves, self.slopes(layer, channel, [leaf for _, leaf in leaves]), strict=True):
            if slope is not None:
                rows = slope.reshape(-1, slope.shape[-1]).count_nonzero(0).nonzero()[:, 0].tolist()
                if rows:
                    found.setdefault(name, set()).update(rows)
        return {name: sorted(rows) for name, rows in found.items()}

    def passed_on(self, layer: str, channel: int) -> bool:
        """Whether a channel of a layer's input comes from the block's own input, past all linear layers."""
        given = [x for x in self.given if x.shape[-1:] == self.inputs[layer][0].shape[-1:]]
        return any(slope is not None and bool(slope.any()) for slope in self.slopes(layer, channel, given))

    def slopes(self, layer: str, channel: int, leaves: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Gradients of a mixture of a channel's values in all tokens and uses."""
        read = [x for x in self.inputs[layer] if x.requires_grad]
        if not read or not leaves:
            return [None] * len(leaves)
        with torch.enable_grad():
            total = torch.stack([(x[..., channel] * noise_like(x[..., channel])).sum() for x in read]).sum()
        return torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)


def noise_like(x: Tensor) -> Tensor:
    """Random numbers, always the same, that leave torch's own generator alone."""
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)


def runs(rows: Sequence[int]) -> list[list[int]]:
    """Rows that follow each other, together."""
    found: list[list[int]] = []
    for row in rows:
        if found and row == found[-1][-1] + 1:
            found[-1].append(row)
        else:
            found.append([row])
    return found
