"""Heads and neurons of a block, found by following channels through one call of it, and proved by removing some.

Linear layers are cut from each other, so that a gradient leads from a channel of one layer's input to the layers that
make it, and no further. A channel that comes from one row of each of them is a neuron's; one that comes from rows of a
head is a head's. What was found counts only if taking channels away gives what zeroing them gives.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from obsdiff import matrices, surgery
from obsdiff.errors import first_line
from obsdiff.models._removing import disproved
from obsdiff.models._tracing import Call, Probe, Rows, runs
from obsdiff.packages import Group
from obsdiff.sites import Site, Span, Stream

TRIES = 4
"""channels that are looked at for one that is not zero whatever makes it"""


@dataclass(frozen=True)
class Part:
    """Channels of a consumer that come from the same layers.

    Attributes:
        consumer: the first of the channels.
        channels: how many there are.
        size: channels a group, the head's dimension or 1.
        makers: where the first of the channels is made.
        owner: the attention module, '' of neurons.
    """

    consumer: Span
    channels: int
    size: int
    makers: tuple[Span, ...]
    owner: str


class Unknown(Exception):
    """Says what of the heads or neurons that a layer reads is not understood.

    Attributes:
        kind: heads or neurons.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind, self.why = kind, why


def sites_of(
    denoiser: nn.Module, at: str, groups: Sequence[Group], call: Call
) -> tuple[list[Site], dict[str, Unknown]]:
    """What can be removed in a block, in the order of its layers' calls, and of which layers it is not understood.

    Args:
        at: the block's name.
        groups: its prunable layers by the tensor that they read.
        call: the block's, as the pipeline made it.
    """
    block = denoiser.get_submodule(at)
    layers = {f"{at}.{name}": m for name, m in block.named_modules() if isinstance(m, nn.Linear)}
    groups = [group for group in groups if group[0] in layers]  # channels of convolutions are not followed
    probe = Probe(layers, call)
    parts: list[Part] = []
    unknown: dict[str, Unknown] = {}
    for (consumer,) in (group for group in groups if len(group) == 1):
        try:
            parts += parts_of(probe, denoiser, at, consumer)
        except Unknown as error:
            unknown[consumer] = error
        except RuntimeError as error:  # such as of an operation that autograd does not know
            kind = "heads" if owner_of(denoiser, at, [consumer]) else "neurons"
            unknown[consumer] = Unknown(kind, f"gradients do not lead through the block ({first_line(error)})")
    sites = []
    for site in joined(parts, groups, layers):
        if why := disproved(denoiser, block, site, call):
            unknown[site.streams[0].consumer.layer] = Unknown(site.kind, why)
        else:
            sites.append(site)
    return sites, unknown


def parts_of(probe: Probe, denoiser: nn.Module, at: str, consumer: str) -> Iterator[Part]:
    """The channels of a consumer, by what makes them; none of the residual stream, where all come from all.

    Raises:
        Unknown: some come from single rows or heads, and what else they come from is neither.
    """
    _, columns = matrices.shape(surgery.layer_of(denoiser, consumer))
    start = 0
    while start < columns:
        offset, rows = alive(probe, consumer, start, columns)
        lengths = [len(run) for found in rows.values() for run in runs(found)]
        if 1 not in lengths or probe.passed_on(consumer, start + offset):
            return
        owner = owner_of(denoiser, at, rows) if max(lengths) > 1 else ""
        kind = "heads" if owner else "neurons"
        widths = {name: probe.outputs[name][0].shape[-1] for name in rows}
        size = head_size(denoiser, owner, rows, widths) if owner else 1
        makers = tuple(spans(rows, offset, size, widths, kind))
        channels = min(room(makers, widths), columns - start)
        if owner and (channels := min(channels, size * heads_of(denoiser, owner))) < size * heads_of(denoiser, owner):
            raise Unknown(kind, f"only {channels} of their channels are made, and read, in one stretch")
        for channel in sorted({offset + 1, channels - 1, channels // 2, channels // 3}):
            found = probe.rows(consumer, start + channel) if start + channel < columns else {}
            if min(maker.first for maker in makers) < 0 or (
                found and set(spans(found, channel, size, widths, kind)) != set(makers)
            ):
                raise Unknown(kind, "they are not made in the order in which they are read")
        yield Part(Span(consumer, start), channels, size, makers, owner)
        start += channels


def alive(probe: Probe, consumer: str, start: int, columns: int) -> tuple[int, Rows]:
    """The first channel from `start` on that comes from any rows, and those; a ReLU may be zero for all tokens."""
    for offset in range(min(TRIES, columns - start)):
        if rows := probe.rows(consumer, start + offset):
            return offset, rows
    return 0, {}


def head_size(denoiser: nn.Module, owner: str, rows: Rows, widths: Mapping[str, int]) -> int:
    """Channels of a head: of a layer that makes values, or of the longest run where one layer makes all.

    Raises:
        Unknown: several heads read the same keys and values.
    """
    heads = heads_of(denoiser, owner)
    values = [name for name, found in rows.items() if len(found) == 1]
    if not values:
        return max(len(run) for found in rows.values() for run in runs(found))
    narrow = min(values, key=widths.__getitem__)
    wide = max(rows, key=widths.__getitem__)
    if widths[narrow] < widths[wide]:
        raise Unknown("heads", f"{narrow} makes fewer channels than {wide}, so several heads share them")
    if widths[narrow] % heads:
        raise Unknown("heads", f"{narrow} makes {widths[narrow]} channels for {heads} heads")
    return widths[narrow] // heads


def heads_of(denoiser: Any, owner: str) -> int:
    return int(denoiser.get_submodule(owner).heads)


def spans(rows: Rows, channel: int, size: int, widths: Mapping[str, int], kind: str) -> Iterator[Span]:
    """Where the channels of a part begin in the layers that make them, told from the rows of one of them.

    Raises:
        Unknown: the rows of a layer are neither single ones nor within a head.
    """
    head = channel // size
    for name, found in rows.items():
        for cluster in clusters(found, size):
            if len(cluster) == 1:
                yield Span(name, cluster[0] - channel)
            elif cluster[-1] - cluster[0] < size:
                yield Span(name, cluster[0] // size * size - head * size)
            else:
                count = "all" if len(found) == widths.get(name) else len(found)
                raise Unknown(kind, f"{count} channels of {name} meet in one of them (a norm that spans them?)")


def clusters(rows: Sequence[int], size: int) -> list[list[int]]:
    """Rows that lie in one stretch of a head's size, together; single rows where a group is one channel."""
    found: list[list[int]] = []
    for row in rows:
        if size > 1 and found and row // size == found[-1][-1] // size:
            found[-1].append(row)
        elif size > 1 and found and row == found[-1][-1] + 1 and len(found[-1]) > size // 2:
            found[-1].append(row)  # goes on beyond a head
        else:
            found.append([row])
    return found


def room(makers: Sequence[Span], widths: Mapping[str, int]) -> int:
    """How many channels the layers can make from these rows on, before the next of the rows or a layer's end."""
    free = []
    for name, first in makers:
        later = [other.first for other in makers if other.layer == name and other.first > first]
        free.append(min([*later, widths[name]]) - first)
    return min(free, default=0)


def owner_of(denoiser: nn.Module, at: str, layers: Iterable[str]) -> str:
    """The attention module, one with a number of heads, that holds one of these layers; '' if there is none."""
    for name in layers:
        parent = name.rpartition(".")[0]
        while parent.startswith(f"{at}."):
            if isinstance(getattr(denoiser.get_submodule(parent), "heads", None), int):
                return parent
            parent = parent.rpartition(".")[0]
    return ""


def joined(parts: Sequence[Part], groups: Sequence[Group], layers: Mapping[str, nn.Linear]) -> list[Site]:
    """Sites: parts that share makers are one, as the streams of a joint attention do."""
    together: list[list[Part]] = []
    for part in parts:
        shared = [known for known in together if any(set(part.makers) & set(other.makers) for other in known)]
        merged = [other for known in shared for other in known] + [part]
        together = [known for known in together if known not in shared] + [merged]
    claimed = {maker.layer for part in parts for maker in part.makers}
    sites = []
    for known in sorted(together, key=lambda some: parts.index(some[0])):
        first = known[0]
        makers = list(dict.fromkeys(maker for part in known for maker in part.makers))
        if first.owner:  # queries that nothing reads, of a text stream that ends here
            reading = [group for group in groups if {maker.layer for maker in makers} & set(group)]
            unread = [
                name
                for group in reading
                for name in group
                if name not in claimed and layers[name].out_features == first.channels
            ]
            makers += [Span(name) for name in unread]
        streams = split(known, makers, groups)
        kind = "heads" if first.owner else "neurons"
        sites.append(Site(kind, first.channels // first.size, first.size, streams, first.owner, found=True))
    return sites


def split(known: Sequence[Part], makers: Sequence[Span], groups: Sequence[Group]) -> tuple[Stream, ...]:
    """Streams of a site: with each consumer the makers that read what its queries read, the first with the rest."""
    reads = {name: group for group in groups for name in group}
    taken: dict[Span, list[Span]] = {part.consumer: [] for part in known}
    for maker in makers:
        alone = [
            part.consumer
            for part in known
            if any(
                reads.get(own.layer, (own.layer,)) == reads.get(maker.layer, (maker.layer,))
                and sum(own in other.makers for other in known) == 1
                for own in part.makers
            )
        ]
        taken[alone[0] if alone else known[0].consumer].append(maker)
    return tuple(Stream(consumer, tuple(own)) for consumer, own in taken.items())
