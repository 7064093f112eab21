"""Everything offline, on one thread, without telemetry, and not warm: a test's commands run in its own process."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
os.environ.pop("OBSDIFF_WARM", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)

import pytest
import torch
from hypothesis import HealthCheck, settings
from scheduling import pytest_collection_modifyitems, pytest_xdist_make_scheduler

from obsdiff import PruneSpec, Sampling, methods, patterns, registry

__all__ = ["pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", help="page that gets the table of malformed inputs (tests/malformed.py)")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if page := session.config.getoption("--reliability"):
        from malformed import write_table

        write_table(Path(page))


settings.register_profile(
    "default", deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")
torch.set_num_threads(1)

SAMPLING = Sampling(steps=3, guidance_scale=3.0, height=32, width=32, max_sequence_length=4, batch_size=2)
PROMPTS = ("a cat", "two dogs", "the sun")
CHEAP: dict[str, Any] = {"rounds": 2, "seconds": 1e-3}  # of timings whose values do not matter


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hashes of files that tests wrote are not for the user's cache."""
    os.environ["OBSDIFF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def entries(package: str) -> list[str]:
    return registry.names(package)


def spec_of(method: str, **more: Any) -> PruneSpec:
    """A spec of a few calibration prompts; the dense method at its only sparsity."""
    prunes = methods.traits(method).prunes
    base: dict[str, Any] = {"sparsity": None if prunes else 0.0, "prompts": PROMPTS, "sampling": SAMPLING}
    return PruneSpec(method=method, **(base | more))


def pattern_values() -> list[str]:
    """A config value of every pattern; of N:M several."""
    several = {"n_m": ["2:4", "1:4", "4:8"]}
    return [value for name in entries("obsdiff.patterns") for value in several.get(name, [name])]


def combinations() -> list[tuple[str, str]]:
    """Every method that finds what to remove with every pattern that it serves."""
    made = []
    for method in entries("obsdiff.methods"):
        kinds = () if methods.traits(method).given else methods.traits(method).kinds
        made += [(method, value) for value in pattern_values() if patterns.resolve(value).traits.kind in kinds]
    return made


@pytest.fixture(params=entries("obsdiff.models"))
def family(request: pytest.FixtureRequest):
    return registry.load("obsdiff.models", request.param)


@pytest.fixture(scope="module")
def counted_once() -> Iterator[None]:
    """Work follows from configuration, shapes and sampling: for tests that plan the same model again and again."""
    from obsdiff.planning import plan as planning
    from obsdiff.planning import weightless

    count, known = planning.count_flops, {}

    def count_flops(family: Any, denoiser: torch.nn.Module, spec: PruneSpec, vae: dict[str, Any]) -> Any:
        shapes = [(name, parameter.shape) for name, parameter in denoiser.named_parameters()]
        key = repr((type(denoiser), str(denoiser.config), shapes, spec.sampling, vae))
        if key not in known:
            known[key] = count(family, denoiser, spec, vae)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (planning, weightless):
            patch.setattr(module, "count_flops", count_flops)
        yield


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which every run of snakemake has the same fork server, also those of the other workers."""
    base = tmp_path_factory.getbasetemp()
    return {"OBSDIFF_WARM": str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "warm")}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, warm: dict[str, str]):
    """A copy of the project with a finished sweep, for all tests of the DAG (WORKFLOW)."""
    from project import copied

    made = copied(tmp_path_factory.mktemp("clone"), warm)
    made.run()
    return made


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tiny model, dense, randomly pruned and with half its heads and neurons."""
    from obsdiff import prune, save_pruned

    family = registry.load("obsdiff.models", "sd3")
    found = {}
    for name, pattern in (("dense", "unstructured"), ("random", "unstructured"), ("structured", "structured")):
        found[name], pipe = tmp_path_factory.mktemp(name), family.tiny()
        method = "dense" if name == "dense" else "random"
        save_pruned(pipe, found[name], prune(pipe, spec_of(method, pattern=pattern)))
    return found


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved tiny pipeline of every family, only to be read."""
    found = {}
    for name in entries("obsdiff.models"):
        found[name] = tmp_path_factory.mktemp(name) / "model"
        registry.load("obsdiff.models", name).tiny().save_pretrained(found[name])
    return found


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's evaluator as a folder of transformers, only to be read."""
    from converted import converted

    return converted(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="session")
def checkpoints(saved: dict[str, Path]) -> dict:
    from obsdiff.checkpoints.checkpoint import read_pruned

    return {name: read_pruned(folder) for name, folder in saved.items()}


@pytest.fixture(scope="session")
def profiles(checkpoints: dict) -> dict:
    """Those, profiled in little time: models as metrics see them."""
    from eval.model_metrics import Deviation, Model, Profile
    from eval.profile.latency import latency
    from eval.profile.layers import counts, layer_errors
    from eval.profile.work import work
    from obsdiff.captions.prompts import Prompt

    found, prompts = {}, [Prompt("0", "a cat"), Prompt("1", "a dog")]
    for name, pruned in checkpoints.items():
        dense = registry.load("obsdiff.models", "sd3").tiny()
        before = {key: value.clone() for key, value in dense.transformer.state_dict().items()}
        measured: dict[str, Any] = {
            "layers": layer_errors(dense, pruned, prompts, SAMPLING, 0),
            "work": work(dense, pruned, SAMPLING),
            "deviation": Deviation([], [], []),
            "machine": {},
        }
        timings = latency(dense, pruned, SAMPLING, **CHEAP)
        after = dense.transformer.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before), "profiling left the dense model changed"
        found[name] = Model(pruned.manifest, Profile(**measured, **counts(dense, pruned)), timings)
    return found
