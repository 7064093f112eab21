"""Offload: where the components are at each moment of a run, and that the hooks are as before afterwards."""

import pytest
import torch
from conftest import SAMPLING, spec_of

from obsdiff import SpecError, models, prune
from obsdiff.pipelines.guard import offload_of
from obsdiff.pipelines.staging import Stage


def test_a_run_under_model_offload_gives_the_same_weights_and_leaves_it_on(family):
    plain, offloaded = family.tiny(), family.tiny()
    offloaded.enable_model_cpu_offload(device="cpu")
    assert (offload_of(plain), offload_of(offloaded)) == ("none", "model")
    for pipe in (plain, offloaded):
        prune(pipe, spec_of("obs_diff"))
    assert (offload_of(plain), offload_of(offloaded)) == ("none", "model")
    left, right = (models.denoiser_of(pipe).state_dict() for pipe in (plain, offloaded))
    assert all(torch.equal(left[key], right[key]) for key in left)
    embeds = family.encode(offloaded, ["a cat"], SAMPLING)
    assert torch.isfinite(offloaded(**embeds, **SAMPLING.arguments(), output_type="pt").images).all()


def test_sequential_offload_is_refused_with_what_to_do(family):
    pipe = family.tiny()
    pipe.enable_sequential_cpu_offload(device="cpu")
    with pytest.raises(SpecError, match=r"offload: 'sequential' .* prune with offload: model"):
        prune(pipe, spec_of("magnitude"))


def test_the_device_never_holds_encoders_and_denoiser_together(family):
    pipe = family.tiny()
    stage = Stage(pipe, torch.device("cuda"))
    places = dict.fromkeys(stage.components, "cpu")
    together = []

    def moves(name):
        def to(place):
            places[name] = str(place)
            there = {n for n, p in places.items() if p == "cuda"}
            together.append(there)

        return to

    for name, component in stage.components.items():
        component.to = moves(name)
    encoders = {name for name in stage.components if "encoder" in name}
    stage.encoding(alone=True)
    assert together[-1] == encoders
    stage.sampling()
    assert together[-1] == {family.TRAITS.denoiser}
    assert not any(family.TRAITS.denoiser in there and there & encoders for there in together)
    stage.encoding(alone=False)
    assert together[-1] == {family.TRAITS.denoiser} | encoders
