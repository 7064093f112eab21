"""A pipeline's run seen from outside, or changed there: the calls of its parts, their answers, its steps."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class Stop(Exception):
    """Ends a run that has shown what it was to show."""


def first_call(module: "nn.Module", run: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the first call that `module` gets in `run`, which ends there."""
    first: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first.append((args, kwargs))
        raise Stop

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except Stop:
        pass
    finally:
        handle.remove()
    return first[0]


@contextmanager
def replaced(owner: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """For the block of the `with` statement, an object has another method of that name, with the old signature."""
    before, own = vars(owner).get(name), getattr(owner, name)
    setattr(owner, name, functools.wraps(own)(method))
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def recording(pipe: Any, answers: list[Any]) -> AbstractContextManager[None]:
    """For the block of the `with` statement, what the pipeline's encode_prompt returns is added to `answers`."""
    own = pipe.encode_prompt

    def record(*args: Any, **kwargs: Any) -> Any:
        answers.append(own(*args, **kwargs))
        return answers[-1]

    return replaced(pipe, "encode_prompt", record)


def replaying(pipe: Any, answers: Sequence[Any]) -> AbstractContextManager[None]:
    """For the block of the `with` statement, encode_prompt returns what it returned before, without text encoders."""
    left = iter(answers)
    return replaced(pipe, "encode_prompt", lambda *args, **kwargs: next(left))


def counting(pipe: Any, callback: Callable[..., Any]) -> AbstractContextManager[None]:
    """Call back after each step of the scheduler, for a pipeline that has no callback_on_step_end."""
    own, turn = pipe.scheduler.step, count()

    def step(*args: Any, **kwargs: Any) -> Any:
        found = own(*args, **kwargs)
        callback(pipe, next(turn), args[1], {"latents": found[0]})
        return found

    return replaced(pipe.scheduler, "step", step)


@contextmanager
def same_padding(pipe: Any) -> Iterator[None]:
    """For the block of the `with` statement; some pipelines change their tokenizers' side, which is in an identity."""
    sides = {part: part.padding_side for part in pipe.components.values() if hasattr(part, "padding_side")}
    try:
        yield
    finally:
        for part, side in sides.items():
            part.padding_side = side
