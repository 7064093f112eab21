"""FLOPs of an operation by its shapes, 2 a multiply-add: torch's formulas, and what they lack."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_flop_count


def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, out_val: Any = None, **more: Any) -> int:
    """Of the products of queries, keys and values."""
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


attention._get_raw = True  # type: ignore[attr-defined]  # FlopCounterMode is to give it tensors, not shapes
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""attention on a CPU, which torch counts as nothing"""
MISSING: dict[Any, Callable[..., int]] = {} if FUSED in flop_registry else {FUSED: attention}


def count(packet: Any, args: Any, kwargs: Any, made: Any) -> int | None:
    """FLOPs of an operation; None where it is none that is counted.

    Args:
        packet: of torch.ops.
        made: its result.
    """
    if packet in MISSING:
        return MISSING[packet](*args, **kwargs)
    formula = flop_registry.get(packet)
    return None if formula is None else int(formula(*args, **kwargs, out_val=made))
