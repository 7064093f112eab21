"""Joint attention of an image and a text stream, as the blocks of SD 3 and of Flux's first half have it."""

from typing import Any

from obsdiff.packages import Group, Unit
from obsdiff.sites import Site, Span, Stream

# one line per unit, one tuple per group of layers with the same input; what a block lacks is left out
_BLOCK = (
    (("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    (("attn.to_out.0",), ("attn.to_add_out",)),
    (("attn2.to_q", "attn2.to_k", "attn2.to_v"),),
    (("attn2.to_out.0",),),
    (("ff.net.0.proj",), ("ff_context.net.0.proj",)),
    (("ff.net.2",), ("ff_context.net.2",)),
)


def units(block: Any, at: str) -> list[Unit]:
    """Of one block.

    Args:
        at: its name, as in `transformer_blocks.0`.
    """
    present = {name for name, _ in block.named_modules()}
    found: list[Unit] = []
    for unit in _BLOCK:
        named = (tuple(f"{at}.{name}" for name in group if name in present) for group in unit)
        if groups := tuple(group for group in named if group):
            found.append(groups)
    return found


def groups(block: Any, at: str, text_first: bool) -> list[Group]:
    """Of one block, in the order of their calls: the text's feed-forward comes after all of the image's.

    Args:
        text_first: whether the text's output projection of attention comes before the image's.
    """

    def turn(group: Group) -> int:
        name = group[0].removeprefix(f"{at}.")
        early = 1 if name == "attn.to_add_out" and text_first else 2
        return 0 if name in ("attn.to_q", "attn.add_q_proj") else 3 if name.startswith("ff_context.") else early

    return sorted((group for unit in units(block, at) for group in unit), key=turn)


def sites(block: Any, at: str) -> list[Site]:
    """Heads of attn and attn2, neurons of ff and ff_context of one block, in order of execution.

    A text stream without output projection (SD 3's last block): its queries, keys and values go with the image's.
    """
    found = []
    for name in ("attn", "attn2"):
        attention = getattr(block, name, None)
        if attention is None:
            continue
        own = tuple(Span(f"{at}.{name}.{p}") for p in ("to_q", "to_k", "to_v"))
        text = tuple(
            Span(f"{at}.{name}.{p}")
            for p in ("add_q_proj", "add_k_proj", "add_v_proj")
            if getattr(attention, p, None) is not None
        )
        to_text = getattr(attention, "to_add_out", None)
        streams = [Stream(Span(f"{at}.{name}.to_out.0"), own if to_text is not None else own + text)]
        if to_text is not None:
            streams.append(Stream(Span(f"{at}.{name}.to_add_out"), text))
        size = attention.to_out[0].in_features // attention.heads
        found.append(Site("heads", attention.heads, size, tuple(streams), f"{at}.{name}"))
    for name in ("ff", "ff_context"):
        if (forward := getattr(block, name, None)) is not None:
            stream = Stream(Span(f"{at}.{name}.net.2"), (Span(f"{at}.{name}.net.0.proj"),))
            found.append(Site("neurons", forward.net[2].in_features, 1, (stream,)))
    return found
