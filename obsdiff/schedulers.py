"""Samplers by their common names, and which diffusers scheduler each is.

A family says in its trait `schedulers` which of them its pipeline can use; flow-matching families take the `flow`
column. The scheduler is made from the pipeline's own configuration, so that noise schedule, shift and what the
network predicts stay the model's.
"""

from collections.abc import Mapping
from typing import Any

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


def is_flow(cls: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler of that class and configuration is for flow matching."""
    return cls.startswith("FlowMatch") or bool(config.get("use_flow_sigmas", False))


def made(name: str, own: Any) -> Any:
    """The scheduler of that name for a pipeline whose own one is `own`."""
    import diffusers

    flow = is_flow(type(own).__name__, own.config)
    cls, more = (FLOW if flow else DIFFUSION)[name]
    if flow:
        shift = own.config.get("shift", own.config.get("flow_shift", 1.0))
        more = more | {"flow_shift" if name == "dpm++" else "shift": shift}
    return getattr(diffusers, cls).from_config(own.config, **more)
