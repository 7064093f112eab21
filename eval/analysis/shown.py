"""Which metrics a table, a figure or a sentence is about, as the metrics themselves say (their Traits)."""

from functools import cache

from eval import image_metrics, model_metrics
from obsdiff import registry


@cache
def names(table: str) -> tuple[str, ...]:
    """Metrics of a table of summary.md, in the order of its columns."""
    entries = ((kind, name) for kind in (image_metrics, model_metrics) for name in registry.names(kind.__name__))
    found = [(kind.traits(name).order, name) for kind, name in entries if kind.traits(name).table == table]
    return tuple(name for _, name in sorted(found))


def measured() -> tuple[str, ...]:
    """All metrics of quality, of similarity to the dense model, and of other sets of real images."""
    return (*names("quality"), *names("similarity"), *names("references"))


@cache
def headlines() -> tuple[str, ...]:
    """The metrics that sentences, paired differences and figures are about, the first of them first."""
    entries = registry.names(image_metrics.__name__)
    found = [(rank, name) for name in entries if (rank := image_metrics.traits(name).headline)]
    return tuple(name for _, name in sorted(found))


@cache
def broken_by() -> tuple[str, ...]:
    """The headlines, a number of each prompt, that the dense model has too: below its value a model is worse."""
    return tuple(
        name for name in headlines() if name in names("quality") and image_metrics.traits(name).per == "prompt"
    )


@cache
def is_share(name: str) -> bool:
    """Whether a metric is a share of hits, 0 or 100 of each prompt."""
    return name in registry.names(image_metrics.__name__) and image_metrics.traits(name).share
