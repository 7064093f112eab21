"""How images are sampled: settings, batches, noise, and the one call of a pipeline."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

from obsdiff import schedulers
from obsdiff.errors import SpecError
from obsdiff.typed import check_types, require

if TYPE_CHECKING:
    import torch
    from torch import nn

ANSWERS = "answers of encode_prompt"
"""among the inputs of run_pipeline(): what encode_prompt returned for them, call by call"""
END_OF_STEP = "callback_on_step_end"
STEPS = 1000
"""the most steps that a sampler takes: as many as the networks were trained with"""


@dataclass(frozen=True)
class Sampling:
    """How images are sampled, in calibration and in use."""

    steps: int = 28
    """denoising steps"""
    guidance_scale: float = 7.0
    """classifier-free guidance; 1 turns it off"""
    height: int | None = None
    """pixels; by default the pipeline's own"""
    width: int | None = None
    """pixels"""
    max_sequence_length: int | None = None
    """tokens of the T5 text (SD3, Flux); by default the pipeline's own"""
    batch_size: int = 8
    """prompts sampled together"""
    scheduler: str | None = None
    """sampler: ddim, dpm++, edm, euler, heun or pndm, as far as the pipeline can use it; by default its own"""

    def __post_init__(self) -> None:
        check_types(self)
        require(1 <= self.steps <= STEPS, "steps", self.steps, f"in [1, {STEPS}]")
        require(self.guidance_scale >= 0, "guidance_scale", self.guidance_scale, "a number >= 0")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "an integer >= 1")
        for key in ("height", "width"):
            value = getattr(self, key)
            require(value is None or value > 0, key, value, "an integer > 0")
        length = self.max_sequence_length
        require(length is None or 0 <= length <= 512, "max_sequence_length", length, "in [0, 512]")
        ok = self.scheduler is None or self.scheduler in schedulers.NAMES
        require(ok, "scheduler", self.scheduler, f"one of {', '.join(schedulers.NAMES)}; or left out")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of a diffusers pipeline's call; what is left out stays the pipeline's own."""
        asked = asdict(self)
        del asked["batch_size"], asked["scheduler"]
        asked["num_inference_steps"] = asked.pop("steps")
        return {k: v for k, v in asked.items() if v is not None}


def batched(count: int, size: int) -> list[slice]:
    """`count` prompts in batches of `size`; the last may be smaller."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def prompt_seed(identity: str, seed: int) -> int:
    """A 63-bit seed from a prompt's identity and the run's seed."""
    return int.from_bytes(sha256(f"{seed}/{identity}".encode()).digest()[:8], "big") >> 1


def noise(identities: Sequence[str], seed: int) -> "list[torch.Generator]":
    """One CPU generator per prompt, so that its noise does not depend on the batch or the device."""
    import torch

    return [torch.Generator("cpu").manual_seed(prompt_seed(identity, seed)) for identity in identities]


def run_pipeline(
    pipe: Any,
    inputs: Mapping[str, Any],
    sampling: Sampling,
    identities: Sequence[str],
    seed: int,
    output: str = "latent",
    callback: Callable[..., Any] | None = None,
) -> Any:
    """Sample one batch with the scheduler that the pipeline has; returns what the pipeline returns.

    Args:
        inputs: keyword arguments of the pipeline's call: a family's encode(), or the prompts themselves; with ANSWERS
            its text encoders are not called.
        identities: the prompts', from which their noise is made with `seed`.
        output: diffusers' output_type; latents are not decoded.
        callback: diffusers' callback_on_step_end.
    """
    pipe.set_progress_bar_config(disable=True)
    given = {key: value for key, value in inputs.items() if key != ANSWERS}
    taken = inspect.signature(type(pipe).__call__).parameters
    with ExitStack() as stack:
        if ANSWERS in inputs:
            stack.enter_context(replaying(pipe, inputs[ANSWERS]))
        if callback is not None and END_OF_STEP in taken:
            given[END_OF_STEP] = callback
        elif callback is not None:
            stack.enter_context(counting(pipe, callback))
        return pipe(**given, **arguments_of(pipe, sampling), generator=noise(identities, seed), output_type=output)


def arguments_of(pipe: Any, sampling: Sampling) -> dict[str, Any]:
    """The sampling's arguments of a pipeline's call; settings that it does not have must be at their defaults.

    Raises:
        SpecError: a setting that the pipeline does not have is not.
    """
    taken, default = inspect.signature(type(pipe).__call__).parameters, Sampling().arguments()
    asked = sampling.arguments()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values()):
        return asked
    for key in asked.keys() - taken.keys():
        if asked.pop(key) != default.get(key):
            raise SpecError(f"sampling: a {type(pipe).__name__} takes no {key}; leave it out")
    return asked


@contextmanager
def explained(pipe: Any, sampling: Sampling, prompts: str) -> Iterator[None]:
    """For the block of the `with` statement, SpecError where a sampling run fails.

    Args:
        prompts: those of the run, in words.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SpecError(
            f"batch_size: {sampling.batch_size} prompts at once need more memory than the device has; "
            "give a smaller one, offload: model, or packages: 2GiB (`obsdiff plan` says what fits)"
        ) from error
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise SpecError(
            f"sampling: the {type(pipe).__name__} fails on {prompts} "
            f"({type(error).__name__}: {why}); its components or the sampling's settings do not fit each other"
        ) from error


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
