"""Samplers: every one a family names runs on its tiny pipeline, every denoiser call has the weight of its step."""

from dataclasses import replace

import pytest
import torch
from conftest import PROMPTS, SAMPLING, entries, spec_of

from obsdiff import Sampling, load_pipeline, models, registry, schedulers
from obsdiff.calibration.runs import Calibration
from obsdiff.errors import SpecError
from obsdiff.pipelines import samplers
from obsdiff.source import Source

CASES = [(name, scheduler) for name in entries("obsdiff.models") for scheduler in models.traits(name).schedulers]


@pytest.fixture(scope="module")
def pipes() -> dict:
    return {name: registry.load("obsdiff.models", name).tiny() for name in entries("obsdiff.models")}


@pytest.mark.parametrize(("name", "scheduler"), CASES)
def test_every_call_of_the_denoiser_has_the_weight_of_its_step(name, scheduler, pipes):
    """Heun calls the denoiser twice a step but the first, PNDM once more: as many weights, none twice, in order."""
    pipe = pipes[name]
    own = pipe.scheduler
    denoiser = models.denoiser_of(pipe)
    sampling = replace(SAMPLING, steps=4, scheduler=scheduler)
    calls, asked = [], []

    class Weights(torch.Tensor):
        def __getitem__(self, i):
            asked.append(int(i))
            return super().__getitem__(i)

    def alphas(steps: int) -> torch.Tensor:
        return torch.ones(steps, dtype=torch.float64).as_subclass(Weights)

    first = registry.load("obsdiff.models", name).units(denoiser)[0][0]
    handle = denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        calibration = Calibration(pipe, spec_of("obs_diff", sampling=sampling, prompts=PROMPTS[:2]), alphas)
        calibration.statistics(denoiser, [first], "hessian", "test")
    finally:
        handle.remove()
    expected = {"heun": 7, "pndm": 5}.get(scheduler, 4)
    assert len(calls) == expected == pipe.num_timesteps
    assert asked == list(range(expected))
    assert pipe.scheduler is own


@pytest.mark.parametrize(("name", "scheduler"), CASES)
def test_schedulers_solve_the_same_equation(name, scheduler, pipes):
    """With many steps every sampler ends near the image that Euler's many steps end at."""
    pipe, family = pipes[name], registry.load("obsdiff.models", name)
    found = []
    for which in ("euler", scheduler):
        sampling = replace(SAMPLING, steps=60, scheduler=which, guidance_scale=1.0)
        with samplers.using(pipe, sampling), torch.no_grad():
            pipe.set_progress_bar_config(disable=True)
            embeds = family.encode(pipe, PROMPTS[:1], sampling)
            noise = torch.Generator().manual_seed(0)
            found.append(pipe(**embeds, **sampling.arguments(), generator=noise, output_type="latent").images)
    euler, other = found
    assert torch.isfinite(other).all()
    cosine = torch.nn.functional.cosine_similarity(euler.flatten(), other.flatten(), dim=0)
    assert cosine > 0.95  # the scale is the first step's noise level, which schedulers choose differently


def test_table_is_of_diffusers():
    import diffusers

    for cls, _ in [*schedulers.DIFFUSION.values(), *schedulers.FLOW.values()]:
        assert hasattr(diffusers, cls)
    assert {s for _, s in CASES} <= set(schedulers.NAMES)


def test_scheduler_is_no_argument_of_the_call():
    assert "scheduler" not in Sampling(scheduler="heun").arguments()


def test_unusable_scheduler_is_refused_before_any_weights(tmp_path, pipes):
    with pytest.raises(SpecError, match=r"scheduler: 'eulr' is not one of ddim, .*or left out"):
        Sampling(scheduler="eulr")
    message = r"scheduler: 'ddim' is not one that a StableDiffusion3Pipeline can use \(dpm\+\+, euler, heun\); give one"
    with pytest.raises(SpecError, match=message), samplers.using(pipes["sd3"], Sampling(scheduler="ddim")):
        pass
    pipes["sd3"].save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    with pytest.raises(SpecError, match=message):
        load_pipeline(Source(str(tmp_path)), Sampling(scheduler="ddim"))


def test_loaded_pipeline_has_the_scheduler(tmp_path, pipes):
    pipes["sd3"].save_pretrained(tmp_path)
    made = load_pipeline(Source(str(tmp_path)), Sampling(scheduler="heun")).scheduler
    assert type(made).__name__ == "FlowMatchHeunDiscreteScheduler"
    assert made.config.shift == pipes["sd3"].scheduler.config.shift
