"""FLOPs of operations by their shapes, 2 a multiply-add: torch's formulas, and what they lack."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count


def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **more: Any) -> int:
    """Of the products of queries, keys and values."""
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""attention on a CPU, which torch counts as nothing"""
FORMULAS: dict[Any, Callable[..., int]] = {FUSED: attention} | flop_registry


class Counting(TorchDispatchMode):
    """Inside the block, FLOPs by operation are in `flops`; FlopCounterMode also records modules, which takes longer."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: dict[str, int] = {}

    def made(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operation."""
        return func(*args, **kwargs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func._overloadpacket
        made = self.made(func, args, kwargs)
        if packet in FORMULAS:
            count = FORMULAS[packet](*args, **kwargs, out_val=made)
            self.flops[str(packet)] = self.flops.get(str(packet), 0) + int(count)
        return made
