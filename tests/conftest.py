"""Everything offline, on one thread, without telemetry, and never warm: a test's jobs are its own."""

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
os.environ.pop("OBSDIFF_WARM", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)

import pytest
import torch
from hypothesis import HealthCheck, settings

from obsdiff import PruneSpec, Sampling, patterns, registry

settings.register_profile(
    "default", deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")
torch.set_num_threads(1)

SAMPLING = Sampling(steps=3, guidance_scale=3.0, height=32, width=32, max_sequence_length=4, batch_size=2)
PROMPTS = ("a cat", "two dogs", "the sun")


def entries(package: str) -> list[str]:
    return registry.names(package)


def spec_of(method: str, **more: object) -> PruneSpec:
    """A spec of a few calibration prompts; the dense method at its only sparsity."""
    prunes = registry.constants("obsdiff.methods", method)["PRUNES"]
    base = {"sparsity": None if prunes else 0.0, "prompts": PROMPTS, "sampling": SAMPLING}
    return PruneSpec(method=method, **(base | more))


def pattern_values() -> list[str]:
    """A config value of every pattern; of N:M several."""
    several = {"n_m": ["2:4", "1:4", "4:8"]}
    return [value for name in entries("obsdiff.patterns") for value in several.get(name, [name])]


def combinations() -> list[tuple[str, str]]:
    """Every method with every pattern that it serves."""
    made = []
    for method in entries("obsdiff.methods"):
        kinds = registry.constants("obsdiff.methods", method)["KINDS"]
        made += [(method, value) for value in pattern_values() if patterns.resolve(value).facts["KIND"] in kinds]
    return made


@pytest.fixture(params=entries("obsdiff.models"))
def family(request: pytest.FixtureRequest):
    return registry.load("obsdiff.models", request.param)
