"""What goes wrong while a model runs is one error that says where, and what to do."""

import pytest
import torch
from conftest import spec_of
from diffusers import UNet2DConditionModel
from parts import denoiser_and_names

from obsdiff import Source, models, prune, registry
from obsdiff.calibration.runs import Calibration
from obsdiff.errors import LayerError, SpecError
from obsdiff.models import _tiny
from obsdiff.pipelines.loading import place


def test_numbers_that_leave_their_range_name_layer_step_and_prompts(family):
    """The layer is where NaN or infinity arises, and not the first one whose statistic shows it."""
    pipe, denoiser, names = denoiser_and_names(family)
    unit = family.units(denoiser)[-1]
    layer = models.linear(denoiser, names[len(names) // 2])
    calls = []

    def overflow(module, args, output):
        calls.append(1)
        return output + float("inf") if len(calls) % per_run > per_step * 2 else output

    handle = layer.register_forward_hook(lambda *_: calls.append(1))
    calibration = Calibration(pipe, spec_of("obs_diff", prompts=("a", "b")))
    calibration.statistics(denoiser, list(unit), "moments", "test")
    handle.remove()
    per_run = len(calls) + 1
    per_step, calls = len(calls) // pipe.num_timesteps, []
    layer.register_forward_hook(overflow)
    name = names[len(names) // 2]
    with pytest.raises(LayerError, match=rf"^{name}: its output holds NaN or infinity at step \d of \d, .*'a'"):
        calibration.blame(denoiser, slice(0, 2))


def test_text_encoders_that_overflow_are_named_before_sampling(family):
    pipe = family.tiny()
    with torch.no_grad():
        next(pipe.text_encoder.parameters()).fill_(float("nan"))
        if getattr(pipe, "text_encoder_2", None) is not None:
            next(pipe.text_encoder_2.parameters()).fill_(float("nan"))
    with pytest.raises(SpecError, match=r"prompts: the text encoders give NaN or infinity .* prompts 1 to 2 .*'a cat'"):
        prune(pipe, spec_of("obs_diff"))


def test_components_that_do_not_fit_each_other_are_one_error():
    pipe = registry.load("obsdiff.models", "sd").tiny()
    pipe.unet = UNet2DConditionModel(**_tiny.UNET, cross_attention_dim=24)
    with pytest.raises(SpecError, match=r"sampling: the StableDiffusionPipeline fails on .*'a cat'.*RuntimeError"):
        prune(pipe, spec_of("obs_diff"))
    pipe.unet = UNet2DConditionModel(**_tiny.UNET, cross_attention_dim=16, class_embed_type="timestep")
    with pytest.raises(SpecError, match="class_labels should be provided"):
        prune(pipe, spec_of("obs_diff"))


def test_memory_that_runs_out_is_one_error(family, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipe = family.tiny()
    monkeypatch.setattr(type(pipe), "__call__", full)
    with pytest.raises(SpecError, match=r"batch_size: 2 prompts at once need more memory .* give a smaller one"):
        prune(pipe, spec_of("obs_diff"))
    monkeypatch.setattr(type(pipe), "to", full)
    with pytest.raises(SpecError, match="offload: 'none' needs more memory than cuda has; give offload: model"):
        place(pipe, Source("x/y", device="cuda"))
