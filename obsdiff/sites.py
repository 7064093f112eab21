"""Sites of structured pruning: what is removed together, the heads of an attention or the neurons of a feed-forward.

A site's streams are linear layers that read its channels (consumers) and those that make them (producers). Removing a
group of channels takes the consumers' columns and the producers' rows. Two sites may share a consumer (Flux's single
blocks project heads and neurons through one layer).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Span(NamedTuple):
    """The site's channels in a linear layer: columns of a consumer, rows of a producer, from `first` on."""

    layer: str
    first: int = 0


@dataclass(frozen=True)
class Stream:
    """A consumer and its producers; a gated feed-forward's projection (GEGLU) is two producers of one name."""

    consumer: Span
    producers: tuple[Span, ...]


@dataclass(frozen=True)
class Site:
    """One attention or feed-forward.

    Attributes:
        kind: 'heads' or 'neurons'.
        groups: how many there are.
        size: channels a group: the head's dimension, 1 for a neuron.
        owner: the attention module whose head count changes; '' for neurons.
        found: whether it was found by a call, not in a file of obsdiff/models; a checkpoint then has to describe it.
    """

    kind: str
    groups: int
    size: int
    streams: tuple[Stream, ...]
    owner: str = ""
    found: bool = False

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Site":
        """From asdict() of one, or from JSON of that."""
        streams = tuple(
            Stream(Span(*stream["consumer"]), tuple(Span(*maker) for maker in stream["producers"]))
            for stream in record["streams"]
        )
        return cls(**{**record, "streams": streams})

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers, each once, consumers first."""
        consumers = [stream.consumer.layer for stream in self.streams]
        return tuple(dict.fromkeys(consumers + [p.layer for s in self.streams for p in s.producers]))
