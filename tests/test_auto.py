"""Pipelines without a file of their own: what is found in them, and that masks are pruned, saved and loaded."""

from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace

import diffusers
import pytest
import torch
from conftest import SAMPLING, spec_of
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from parts import weights_of
from pipelines import MAKE, SMALL, made
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from obsdiff import Source, load_pruned, matrices, models, observing, plan, prune, sampling, save_pruned
from obsdiff.__main__ import main
from obsdiff.calibration.runs import Calibration, Steps
from obsdiff.calibration.stored import trajectory_of
from obsdiff.calibration.walking import Walk
from obsdiff.errors import SpecError
from obsdiff.models import _auto
from obsdiff.pipelines import staging
from obsdiff.pipelines.loading import load_pipeline
from obsdiff.targets import Target

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")  # Chroma's own import
REACH = {"HunyuanDiT": 0.2, "ZImage": 0.2}
"""share of the parameters that is in reach at least, where embeddings of fixed size are most of a tiny model"""


@pytest.fixture(params=MAKE)
def name(request) -> str:
    return request.param


def test_layers_found_are_those_of_the_hand_written_families(family):
    """With the same shared inputs, in the order of their calls; so every statistic is the same."""
    pipe = family.tiny()
    found = _auto.of(pipe, models.Traits)
    found.watch(SAMPLING)
    denoiser = models.denoiser_of(pipe)
    assert {frozenset(group) for group in found.groups(denoiser)} == {frozenset(g) for g in family.groups(denoiser)}
    assert set(found.blocks(denoiser)) == set(family.blocks(denoiser))
    every = {name for name, module in denoiser.named_modules() if matrices.is_layer(module)}
    assert every == {name for group in found.groups(denoiser) for name in group} | found.left_out.keys()


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
    assert report.sparsity == pytest.approx(0.5, abs=0.01) and report.reach > REACH.get(name, 0.4) and report.layers
    for layer in report.layers:
        weight = models.linear(models.denoiser_of(pipe), layer.name).weight
        assert layer.removed == int((weight == 0).sum())
    assert all("norm" not in layer.name.rpartition(".")[0].split(".")[-1] for layer in report.layers)
    save_pruned(pipe, tmp_path / "half", report)
    load_pruned(again, tmp_path / "half")
    assert all(torch.equal(value, weights_of(again)[key]) for key, value in weights_of(pipe).items())


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
    with observing.counting(pipe, lambda *given: seen.append((given[1], given[3]["latents"].clone()))):
        found = sampling.run_pipeline(pipe, {"prompt": ["a"]}, SMALL, ["a"], 0, callback=steps).images
    assert [turn for turn, _ in seen] == list(range(SMALL.steps)) and steps.now == SMALL.steps
    if name == "Flux2Klein":  # which scales its latents and puts them in another order at the end
        values = (seen[-1][1].flatten().sort().values, found.flatten().sort().values)
        torch.testing.assert_close(*values, rtol=1e-3, atol=1e-3)
    else:
        assert torch.equal(seen[-1][1].flatten(), found.flatten())
    assert "step" not in vars(pipe.scheduler)


def test_a_plan_says_that_it_cannot_know_heads(folder):
    with pytest.raises(SpecError, match=r"pattern: 'heads': .*by a call with its weights.*plan a mask, such as 2:4"):
        plan(Source(folder("ZImage")), spec_of("magnitude", pattern="heads", sampling=SMALL))


def test_a_setting_that_the_pipeline_does_not_have_is_refused():
    class Plain:
        def __call__(self, prompt: str, num_inference_steps: int = 2) -> None: ...

    asked = sampling.Sampling(steps=4)
    assert sampling.arguments_of(Plain, asked) == {"num_inference_steps": 4}
    for key, value in (("height", 32), ("guidance_scale", 3.0), ("max_sequence_length", 64)):
        with pytest.raises(SpecError, match=f"sampling: a Plain takes no {key}; leave it out"):
            sampling.arguments_of(Plain, replace(asked, **{key: value}))


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny pipelines, saved when they are asked for."""
    known = {}

    def saved(name: str) -> str:
        if name not in known:
            known[name] = tmp_path_factory.mktemp(name)
            made(name).save_pretrained(known[name])
        return str(known[name])

    return saved


def test_plan_without_weights_sees_what_a_run_sees(name, folder, monkeypatch):
    """Layers, their groups, and FLOPs of a step: of a model folder whose weights cannot be read."""
    monkeypatch.setattr("safetensors.torch.load_file", None)
    spec = spec_of("obs_diff", sampling=SMALL, packages=2)
    found = plan(Source(folder(name)), spec)
    pipe = made(name)
    family, denoiser = models.family_of(pipe, SMALL), models.denoiser_of(pipe)
    assert list(found.layers) == [layer for group in family.groups(denoiser) for layer in group]
    pruned = [part for part in found.parts if part.pruned]
    assert sum(part.weights for part in pruned) == sum(models.linear(denoiser, x).weight.numel() for x in found.layers)
    assert sum(part.share for part in found.parts) < 1 and all(p.why for p in found.parts if not p.pruned)
    inputs = family.encode(pipe, ["a"], SMALL)
    stopped = (suppress(observing.Stop), observing.counting(pipe, stop), sdpa_kernel(SDPBackend.MATH))
    with FlopCounterMode(display=False) as counter, torch.no_grad(), ExitStack() as stack:
        for one in stopped:
            stack.enter_context(one)
        sampling.run_pipeline(pipe, inputs, SMALL, ["a"], 0)
    assert found.flops == counter.get_total_flops() and found.effort.encode > 0


def stop(*_) -> None:
    raise observing.Stop


def test_a_model_folder_is_pruned_by_command_line(folder, tmp_path):
    """plan, prune, inspect, load and export of a folder whose class has no file."""
    model, out, prompts = folder("QwenImage"), tmp_path / "half", tmp_path / "prompts.txt"
    prompts.write_text("a cat\ntwo dogs\n")
    extra = ["--extra", "true_cfg_scale", "2", "negative_prompt", "blue"]
    common = ["--model", model, "--steps", "2", "--height", "32", "--width", "32", *extra]
    for command in (
        ["plan", *common],
        ["prune", *common, "--out", str(out), "--prompts-file", str(prompts)],
        ["inspect", str(out)],
        ["export", "--checkpoint", str(out), "--model", model, "--out", str(tmp_path / "folder")],
    ):
        assert main(command) == 0
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder")
    pipe = load_pipeline(Source(model))
    manifest = load_pruned(pipe, out)
    assert manifest.spec["sampling"]["extra"] == {"true_cfg_scale": 2, "negative_prompt": "blue"}
    assert all(torch.equal(value, weights_of(again)[key]) for key, value in weights_of(pipe).items())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"true_cfg": 4.0}, r"extra\.true_cfg: no such key; did you mean 'true_cfg_scale'"),
        ({"height": 32}, "extra: 'height' is not another argument"),
        ({"prompt": "a"}, "extra: 'prompt' is not another argument"),
    ],
)
def test_an_argument_that_the_call_does_not_have_is_refused_before_weights_load(extra, message, folder, monkeypatch):
    monkeypatch.setattr("obsdiff.pipelines.loading.load_component", None)
    with pytest.raises(SpecError, match=message):
        load_pipeline(Source(folder("QwenImage")), replace(SMALL, extra=extra))


def test_a_size_that_is_asked_for_is_not_rounded():
    """PixArt would draw 1024 × 1024 and make it smaller."""
    pipe = made("PixArtSigma")
    assert sampling.arguments_of(type(pipe), SMALL)["use_resolution_binning"] is False
    assert "use_resolution_binning" not in sampling.arguments_of(type(pipe), sampling.Sampling())
    asked = replace(SMALL, extra={"use_resolution_binning": True})
    assert sampling.arguments_of(type(pipe), asked)["use_resolution_binning"] is True


def test_a_layer_that_a_call_reads_twice_is_calibrated_on_both_inputs():
    """CogView4's feed-forward layers see image and text: sequential on one block gives the statistic of a plain run."""
    pipe = made("CogView4")
    spec = spec_of("obs_diff", sampling=SMALL, packages="sequential", calibration_steps=0, weighting="uniform")
    family, denoiser = models.family_of(pipe, SMALL), models.denoiser_of(pipe)
    group = next(group for group in family.groups(denoiser) if group[0].endswith("0.ff.net.0.proj"))
    assert family.repeated[group[0]] == ("transformer_blocks.0", 2)
    trajectory = trajectory_of(spec, {}, None)
    with torch.no_grad(), staging.staged(pipe):
        calibration = Calibration(pipe, spec)
        plain = calibration.statistics(denoiser, [group], "hessian", "")[group]
        trajectory.record(calibration, denoiser)
        alphas = torch.ones(trajectory.steps, dtype=torch.float64)
        walk = Walk(trajectory, denoiser, alphas, torch.device("cpu"), None, repeated=family.repeated)
        before = next(group for group in family.groups(denoiser) if group[0].endswith("0.attn1.to_out.0"))
        walk.statistics(Target((before,)), "hessian")  # stops inside the block
        walked = walk.statistics(Target((group,)), "hessian")[group]
        walk.close()
    assert walked.tokens == plain.tokens
    torch.testing.assert_close(walked.value(torch.device("cpu")).hessian, plain.value(torch.device("cpu")).hessian)


@pytest.mark.parametrize("name", ["FluxImg2ImgPipeline", "QwenImageEditPipeline", "StableDiffusion3ControlNetPipeline"])
def test_pipelines_that_start_from_an_image_are_told_what_to_do(name):
    index = {"_class_name": name, "transformer": ["diffusers", "X"], "scheduler": ["diffusers", "Y"]}
    with pytest.raises(SpecError, match=f"a {name} is not supported .*prune the text-to-image pipeline"):
        models.family_of_index(index)
