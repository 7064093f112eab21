"""Samplers by their common names: which diffusers scheduler each is, and how a pipeline gets it.

load_pipeline gives a pipeline the scheduler of the sampling that it is told; prune() samples with its spec's and
leaves the pipeline with the one that it came with.

A family says in its trait `schedulers` which of them its pipeline can use; flow-matching families take the `flow`
column. The scheduler is made from the pipeline's own configuration, so that noise schedule, shift and what the
network predicts stay the model's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from obsdiff import models
from obsdiff.errors import SpecError

if TYPE_CHECKING:
    from types import ModuleType

    from obsdiff.spec import Sampling

Scheduler = tuple[str, dict[str, Any]]
"""a class of diffusers, and what its configuration is given beside the pipeline's"""

DIFFUSION: dict[str, Scheduler] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    # Euler on the step sizes of Karras et al. (2022): diffusers' EDMEulerScheduler is for networks trained with that
    # paper's preconditioning, which none of the families is
    "edm": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
}
FLOW: dict[str, Scheduler] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "heun": ("FlowMatchHeunDiscreteScheduler", {}),
}
NAMES = tuple(sorted(DIFFUSION | FLOW))


def check(family: "str | ModuleType", sampling: "Sampling") -> None:
    """Raise SpecError where the family's pipeline cannot use the scheduler; nothing is imported.

    Args:
        family: a file of obsdiff/models, or its name.
    """
    if sampling.scheduler is None:
        return
    name = family if isinstance(family, str) else family.__name__.rpartition(".")[2]
    traits = models.traits(name)
    if sampling.scheduler not in traits.schedulers:
        raise SpecError(
            f"scheduler: {sampling.scheduler!r} is not one that a {traits.pipeline} can use "
            f"({', '.join(traits.schedulers)}); give one of these, or leave it out for the pipeline's own"
        )


def made(name: str, own: Any) -> Any:
    """The scheduler of that name for a pipeline whose own one is `own`."""
    import diffusers

    flow = type(own).__name__.startswith("FlowMatch") or own.config.get("use_flow_sigmas", False)
    cls, more = (FLOW if flow else DIFFUSION)[name]
    if flow:
        shift = own.config.get("shift", own.config.get("flow_shift", 1.0))
        more = more | {"flow_shift" if name == "dpm++" else "shift": shift}
    return getattr(diffusers, cls).from_config(own.config, **more)


def use(pipe: Any, sampling: "Sampling") -> None:
    """Give a pipeline the scheduler of `sampling`, if it names one.

    Raises:
        SpecError: the pipeline cannot use it.
    """
    if sampling.scheduler is not None:
        check(models.family_of(pipe), sampling)
        pipe.scheduler = made(sampling.scheduler, pipe.scheduler)


@contextmanager
def using(pipe: Any, sampling: "Sampling") -> Iterator[None]:
    """use() inside the block; after it the pipeline has the scheduler that it had before."""
    before = pipe.scheduler
    use(pipe, sampling)
    try:
        yield
    finally:
        pipe.scheduler = before
