"""How images are sampled: settings, batches, noise, and the one call of a pipeline."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from obsdiff import schedulers
from obsdiff.errors import SpecError
from obsdiff.observing import counting, replaying, same_padding
from obsdiff.typed import check_types, no_such_key, require

if TYPE_CHECKING:
    import torch

ANSWERS = "answers of encode_prompt"
"""among the inputs of run_pipeline(): what encode_prompt returned for them, call by call"""
END_OF_STEP = "callback_on_step_end"
SETTINGS = ("num_inference_steps", "guidance_scale", "height", "width", "max_sequence_length")
"""arguments of a pipeline's call that are fields of a sampling"""
BINNING = "use_resolution_binning"
OWN = ("prompt", "prompt_2", "prompt_3", "generator", "latents", "output_type", "return_dict", "num_images_per_prompt")
"""arguments of a pipeline's call that a sampling run fills in itself"""
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
    extra: dict[str, bool | int | float | str] = field(default_factory=dict)
    """other arguments of the pipeline's call, such as true_cfg_scale 4"""

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
        for key in self.extra:
            ok = key not in (*SETTINGS, *OWN) and not key.startswith("callback")
            require(ok, "extra", key, "another argument of the pipeline's call than a sampling run fills in itself")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of a diffusers pipeline's call without `extra`; what is left out stays its own."""
        asked = {key: getattr(self, "steps" if key == "num_inference_steps" else key) for key in SETTINGS}
        return {key: value for key, value in asked.items() if value is not None}

    def record(self) -> dict[str, Any]:
        """As JSON; `extra` only where there is some."""
        fields = asdict(self)
        return fields if self.extra else {key: value for key, value in fields.items() if key != "extra"}


def steps_of(pipe: Any) -> int:
    """Turns of the pipeline's last sampling run; some pipelines do not keep the number."""
    told = getattr(pipe, "num_timesteps", None)
    return len(pipe.scheduler.timesteps) if told is None else int(told)


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
    taken = parameters_of(type(pipe))
    with ExitStack() as stack:
        stack.enter_context(same_padding(pipe))
        if ANSWERS in inputs:
            stack.enter_context(replaying(pipe, inputs[ANSWERS]))
        if callback is not None and END_OF_STEP in taken:
            given[END_OF_STEP] = callback
        elif callback is not None:
            stack.enter_context(counting(pipe, callback))
        given |= arguments_of(type(pipe), sampling) | {"generator": noise(identities, seed), "output_type": output}
        return pipe(**given)


def arguments_of(pipeline: type, sampling: Sampling) -> dict[str, Any]:
    """Keyword arguments of a pipeline's call; what is left out stays the pipeline's own.

    A pipeline that would round the image's size to one that it was trained on is told not to where a size is asked for.

    Args:
        pipeline: the class.

    Raises:
        SpecError: the call does not take an argument of `extra`, or a setting that is not at its default.
    """
    taken, default, asked = parameters_of(pipeline), Sampling().arguments(), sampling.arguments()
    anything = {name for name, parameter in taken.items() if parameter.kind is inspect.Parameter.VAR_KEYWORD}
    for key in () if anything else asked.keys() - taken.keys():
        if asked.pop(key) != default.get(key):
            raise SpecError(f"sampling: a {pipeline.__name__} takes no {key}; leave it out")
    for key in sampling.extra.keys() - taken.keys():
        raise no_such_key(f"extra.{key}", key, sorted(taken.keys() - {"self", "args", *anything, *OWN, *SETTINGS}))
    if BINNING in taken and (sampling.height or sampling.width):
        asked[BINNING] = False
    return asked | sampling.extra


def parameters_of(pipeline: type) -> dict[str, inspect.Parameter]:
    """The parameters of a pipeline's call, and of the calls that it inherits, by name."""
    calls = (vars(cls)["__call__"] for cls in pipeline.__mro__ if "__call__" in vars(cls))
    return {name: parameter for call in calls for name, parameter in inspect.signature(call).parameters.items()}


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
