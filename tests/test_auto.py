"""Pipelines without a file of their own: what is found in them, and that masks are pruned, saved and loaded."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import SAMPLING, spec_of
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from pipelines import MAKE, made
from torch import nn

from obsdiff import load_pruned, models, prune, sampling, save_pruned
from obsdiff.calibration.runs import Steps
from obsdiff.errors import SpecError
from obsdiff.models import _auto

SMALL = replace(SAMPLING, height=32, width=32, max_sequence_length=None)


@pytest.fixture(params=MAKE)
def name(request) -> str:
    return request.param


def weights(pipe) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in models.denoiser_of(pipe).state_dict().items()}


def test_layers_found_are_those_of_the_hand_written_families(family):
    """With the same shared inputs, in the order of their calls; so every statistic is the same."""
    pipe = family.tiny()
    found = _auto.of(pipe, models.Traits)
    found.watch(SAMPLING)
    denoiser = models.denoiser_of(pipe)
    assert {frozenset(group) for group in found.groups(denoiser)} == {frozenset(g) for g in family.groups(denoiser)}
    assert set(found.blocks(denoiser)) == set(family.blocks(denoiser))
    linear = {name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    assert linear == {name for group in found.groups(denoiser) for name in group} | found.left_out.keys()


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("obs_diff", {"packages": 2}),
        ("magnitude", {"pattern": "2:4"}),
        ("solace", {"packages": "sequential"}),
    ],
    ids=["obs_diff", "magnitude-2:4", "solace-sequential"],
)
def test_masks_are_pruned_saved_and_loaded(name, method, more, tmp_path):
    pipe, again = made(name), made(name)
    report = prune(pipe, spec_of(method, sampling=SMALL, **more))
    assert report.sparsity == pytest.approx(0.5, abs=0.01) and report.reach > 0.4 and report.layers
    for layer in report.layers:
        weight = models.linear(models.denoiser_of(pipe), layer.name).weight
        assert layer.removed == int((weight == 0).sum())
    assert all("norm" not in layer.name.rpartition(".")[0].split(".")[-1] for layer in report.layers)
    save_pruned(pipe, tmp_path / "half", report)
    load_pruned(again, tmp_path / "half")
    assert all(torch.equal(value, weights(again)[key]) for key, value in weights(pipe).items())


def test_recorded_prompts_give_what_the_pipeline_gives_itself(name):
    pipe, prompts = made(name), ["a cat", "two dogs"]
    own = sampling.run_pipeline(pipe, {"prompt": prompts}, SMALL, prompts, 0).images
    inputs = models.family_of(pipe).encode(pipe, prompts, SMALL)
    pipe.text_encoder.forward = None  # not to be called again
    assert inputs[sampling.ANSWERS]
    for _ in range(2):
        assert torch.equal(sampling.run_pipeline(pipe, inputs, SMALL, prompts, 0).images, own)
    assert "encode_prompt" not in vars(pipe)


def test_turns_are_counted_by_the_scheduler_as_by_the_callback(name):
    pipe, seen, steps = made(name), [], Steps()
    with sampling.counting(pipe, lambda *given: seen.append((given[1], given[3]["latents"].clone()))):
        found = sampling.run_pipeline(pipe, {"prompt": ["a"]}, SMALL, ["a"], 0, callback=steps).images
    assert [turn for turn, _ in seen] == list(range(SMALL.steps)) and steps.now == SMALL.steps
    assert torch.equal(seen[-1][1].flatten(), found.flatten()) and "step" not in vars(pipe.scheduler)


def test_heads_and_neurons_are_refused(name):
    with pytest.raises(SpecError, match=r"pattern: 'structured' removes heads and neurons, .*give unstructured"):
        prune(made(name), spec_of("magnitude", pattern="structured", sampling=SMALL))


def test_a_setting_that_the_pipeline_does_not_have_is_refused():
    class Plain:
        def __call__(self, prompt: str, num_inference_steps: int = 2) -> None: ...

    asked = sampling.Sampling(steps=4)
    assert sampling.arguments_of(Plain(), asked) == {"num_inference_steps": 4}
    for key, value in (("height", 32), ("guidance_scale", 3.0), ("max_sequence_length", 64)):
        with pytest.raises(SpecError, match=f"sampling: a Plain takes no {key}; leave it out"):
            sampling.arguments_of(Plain(), replace(asked, **{key: value}))


def test_a_pipeline_that_fails_says_so():
    pipe = made("AuraFlow")
    pipe.tokenizer = None
    with pytest.raises(SpecError, match="sampling: the AuraFlowPipeline fails"):
        prune(pipe, spec_of("magnitude", sampling=SMALL))


def test_what_is_no_text_to_image_pipeline_is_refused():
    """A bare network, and a pipeline of diffusers that has no prompt to encode."""
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1)
    for pipe in (SimpleNamespace(transformer=unet), DDPMPipeline(unet, DDPMScheduler())):
        with pytest.raises(SpecError, match=f"model: a {type(pipe).__name__} is not supported"):
            models.family_of(pipe)
