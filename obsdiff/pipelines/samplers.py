"""How a pipeline gets the scheduler that a sampling names (obsdiff/schedulers.py).

load_pipeline gives a pipeline the scheduler of the sampling that it is told; prune() samples with its spec's and
leaves the pipeline with the one that it came with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from obsdiff import models
from obsdiff.errors import SpecError
from obsdiff.models import Traits
from obsdiff.sampling import Sampling
from obsdiff.schedulers import made


def check(traits: Traits, sampling: Sampling) -> None:
    """Raise SpecError where a family's pipeline cannot use the scheduler."""
    if sampling.scheduler is not None and sampling.scheduler not in traits.schedulers:
        raise SpecError(
            f"scheduler: {sampling.scheduler!r} is not one that a {traits.pipeline} can use "
            f"({', '.join(traits.schedulers)}); give one of these, or leave it out for the pipeline's own"
        )


def use(pipe: Any, sampling: Sampling) -> None:
    """Give a pipeline the scheduler of `sampling`, if it names one.

    Raises:
        SpecError: the pipeline cannot use it.
    """
    if sampling.scheduler is not None:
        check(models.family_of(pipe).TRAITS, sampling)
        pipe.scheduler = made(sampling.scheduler, pipe.scheduler)


@contextmanager
def using(pipe: Any, sampling: Sampling) -> Iterator[None]:
    """use() inside the block; after it the pipeline has the scheduler that it had before."""
    before = pipe.scheduler
    use(pipe, sampling)
    try:
        yield
    finally:
        pipe.scheduler = before
