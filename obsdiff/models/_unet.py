"""What the families on `UNet2DConditionModel` share: the transformer blocks' self- and cross-attention and GEGLU.

Blocks are listed as they run: down, middle, up. The text that cross-attention reads is the same for all blocks, but a
statistic of it is kept with each block's package, as that of any other input.
"""

from collections.abc import Iterator
from typing import Any

from obsdiff.packages import Group, Unit
from obsdiff.sites import Site, Span, Stream


def named_blocks(unet: Any) -> Iterator[tuple[str, Any]]:
    """Names and modules of the transformer blocks in order of execution.

    Other attention, such as that of AttnDownBlock2D or of a dual transformer, is not in reach: it stays dense.
    """
    levels = [(f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)]
    if unet.mid_block is not None:
        levels.append(("mid_block", unet.mid_block))
    levels += [(f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)]
    for name, level in levels:
        for j, attention in enumerate(getattr(level, "attentions", None) or ()):
            for k, block in enumerate(getattr(attention, "transformer_blocks", None) or ()):
                yield f"{name}.attentions.{j}.transformer_blocks.{k}", block


def blocks(unet: Any) -> list[str]:
    return [name for name, _ in named_blocks(unet)]


def units(unet: Any) -> list[Unit]:
    found: list[Unit] = []
    for at, block in named_blocks(unet):
        for name in ("attn1", "attn2"):
            if (attention := getattr(block, name)) is None:
                continue
            q, k, v = (f"{at}.{name}.{part}" for part in ("to_q", "to_k", "to_v"))
            apart = attention.is_cross_attention or name == "attn2"  # the latter gets the text whatever its class says
            found.append(((q,), (k, v)) if apart else ((q, k, v),))
            found.append(((f"{at}.{name}.to_out.0",),))
        found += [((f"{at}.ff.net.0.proj",),), ((f"{at}.ff.net.2",),)]
    return found


def groups(unet: Any) -> list[Group]:
    """In the order of their calls."""
    return [group for unit in units(unet) for group in unit]


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
