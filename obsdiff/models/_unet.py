"""What the families on `UNet2DConditionModel` share: the transformer blocks' self- and cross-attention and GEGLU.

Blocks are listed as they run: down, middle, up. The text that cross-attention reads is the same for all blocks, but a
statistic of it is kept with each block's package, as that of any other input.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from obsdiff import matrices
from obsdiff.packages import Group, Unit
from obsdiff.sites import Site, Span, Stream

BEFORE, AFTER = ("conv_shortcut", "proj_in"), ("proj_out",)
"""modules of residual blocks and around transformer blocks that may be 1×1 convolutions"""


def parts(unet: Any) -> Iterator[tuple[str, Any]]:
    """Names and modules of the residual blocks and of what attends between them, in order of execution."""
    levels = [(f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)]
    if unet.mid_block is not None:
        levels.append(("mid_block", unet.mid_block))
    levels += [(f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)]
    for name, level in levels:
        lists = {kind: getattr(level, kind, None) or () for kind in ("resnets", "attentions")}
        for j in range(max(map(len, lists.values()))):
            yield from ((f"{name}.{kind}.{j}", modules[j]) for kind, modules in lists.items() if j < len(modules))


def blocks_in(at: str, part: Any) -> list[tuple[str, Any]]:
    """Names and modules of a part's transformer blocks.

    Other attention, such as that of AttnDownBlock2D or of a dual transformer, is not in reach: it stays dense.
    """
    modules = getattr(part, "transformer_blocks", None) or ()
    return [(f"{at}.transformer_blocks.{k}", block) for k, block in enumerate(modules)]


def named_blocks(unet: Any) -> Iterator[tuple[str, Any]]:
    """Names and modules of the transformer blocks in order of execution."""
    for at, part in parts(unet):
        yield from blocks_in(at, part)


def blocks(unet: Any) -> list[str]:
    return [name for name, _ in named_blocks(unet)]


def units(unet: Any, convolutions: bool = False) -> list[Unit]:
    """Of the blocks; with the 1×1 convolutions before and after them, and of the residual blocks' shortcuts."""
    found: list[Unit] = []
    for at, part in parts(unet):
        before, after = (convolved(at, part, names) if convolutions else [] for names in (BEFORE, AFTER))
        found += [*before, *units_of_blocks(blocks_in(at, part)), *after]
    return found


def convolved(at: str, part: Any, names: Iterable[str]) -> list[Unit]:
    """Those of a part's modules that are 1×1 convolutions; instead of the projections there may be linear layers."""
    modules = {name: getattr(part, name, None) for name in names}
    return [((f"{at}.{name}",),) for name, m in modules.items() if isinstance(m, nn.Conv2d) and matrices.is_layer(m)]


def units_of_blocks(blocks: Iterable[tuple[str, Any]]) -> Iterator[Unit]:
    for at, block in blocks:
        for name in ("attn1", "attn2"):
            if (attention := getattr(block, name)) is None:
                continue
            q, k, v = (f"{at}.{name}.{part}" for part in ("to_q", "to_k", "to_v"))
            apart = attention.is_cross_attention or name == "attn2"  # the latter gets the text whatever its class says
            yield ((q,), (k, v)) if apart else ((q, k, v),)
            yield ((f"{at}.{name}.to_out.0",),)
        yield ((f"{at}.ff.net.0.proj",),)
        yield ((f"{at}.ff.net.2",),)


def groups(unet: Any, convolutions: bool = False) -> list[Group]:
    """In the order of their calls."""
    return [group for unit in units(unet, convolutions) for group in unit]


def sites(unet: Any) -> list[Site]:
    """Heads of attn1 and attn2; neurons of ff, each a row of GEGLU's values and a row of its gates."""
    found = []
    for at, block in named_blocks(unet):
        for name in ("attn1", "attn2"):
            if (attention := getattr(block, name)) is None:
                continue
            makers = tuple(Span(f"{at}.{name}.{part}") for part in ("to_q", "to_k", "to_v"))
            stream = Stream(Span(f"{at}.{name}.to_out.0"), makers)
            size = attention.to_out[0].in_features // attention.heads
            found.append(Site("heads", attention.heads, size, (stream,), f"{at}.{name}"))
        neurons = block.ff.net[2].in_features
        project = f"{at}.ff.net.0.proj"
        gated = block.ff.net[0].proj.out_features == 2 * neurons
        makers = (Span(project), Span(project, neurons)) if gated else (Span(project),)
        found.append(Site("neurons", neurons, 1, (Stream(Span(f"{at}.ff.net.2"), makers),)))
    return found
