"""Metrics of models: contracts over whatever entries are there, layer errors, FLOPs, memory, bytes, turns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CHEAP, SAMPLING, entries
from torch import nn

from eval import model_metrics
from eval.profile.calls import caught, ready
from eval.profile.latency import in_turns, latency, ratios, zeroed
from eval.profile.layers import layer_errors
from eval.profile.work import Alive, flops, peak_bytes, zero_flops
from obsdiff import models, registry
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.checkpoint import WEIGHTS
from obsdiff.checkpoints.pruned import Pruned
from obsdiff.checkpoints.swapping import swaps
from obsdiff.planning.counting import Products
from obsdiff.surgery import State

PROMPTS = [Prompt("0", "a cat"), Prompt("1", "a dog")]


@pytest.mark.parametrize("name", entries("eval.model_metrics"))
def test_model_metric(name, profiles):
    entry = registry.load("eval.model_metrics", name)
    values = {name: entry.compute(model)[0] for name, model in profiles.items()}
    assert all(np.isfinite(v) and v >= 0 for v in values.values())
    if not entry.TRAITS.timed:
        others = {values["random"], values["structured"]}
        assert others != {values["dense"]}
        if entry.TRAITS.higher_is_better is not None:
            assert all((values["dense"] > other) == entry.TRAITS.higher_is_better for other in others)
    for model in profiles.values():
        value, around = entry.compute(model)
        low, high = around or (0, np.inf)
        assert low <= value <= high


def test_titles_of_model_metrics_differ():
    titles = [model_metrics.traits(name).title for name in entries("eval.model_metrics")]
    assert len(titles) == len(set(titles))


def test_zeros_are_multiplied_and_small_layers_are_not(profiles):
    work = {name: model.profile.work.flops for name, model in profiles.items()}
    assert work["dense"]["pruned"] == work["dense"]["ideal"] == work["dense"]["dense"]
    assert work["random"]["ideal"] < work["random"]["pruned"] == work["random"]["dense"]
    assert work["structured"]["ideal"] == work["structured"]["pruned"] < work["structured"]["dense"]


def test_all_zero_layers_are_all_the_work_that_zeros_are():
    x, model = torch.randn(3, 5, 8), nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4))
    assert zero_flops(model, ("0", "2"), lambda: model(x)) == 0
    assert flops(lambda: model(x)) == 2 * 15 * (8 * 6 + 6 * 4)
    for layer in (model[0], model[2]):
        nn.init.zeros_(layer.weight)
    assert zero_flops(model, ("0", "2"), lambda: model(x)) == flops(lambda: model(x))
    assert zero_flops(model, ("2",), lambda: model(x)) == 2 * 15 * 6 * 4


@torch.no_grad()
def test_memory_is_of_what_is_alive_at_once():
    x, model = torch.randn(32, 8), nn.Sequential(nn.Linear(8, 100), nn.GELU(), nn.Linear(100, 10))
    assert peak_bytes(lambda: model(x), x.device) == 4 * 32 * (100 + 100)  # both sides of GELU; its input is then freed
    assert peak_bytes(lambda: x.view(-1)[3:].view(-1, 1), x.device) == 0
    with Alive() as alive:
        kept = x + 1
        kept.view(8, 32).add_(1)
        for _ in range(3):
            kept * 2
    assert (alive.now, alive.peak) == (kept.nbytes, 2 * kept.nbytes)


def test_memory_falls_with_structure_alone(profiles):
    memory = {name: model.profile.work.memory for name, model in profiles.items()}
    assert memory["random"]["pruned"] == memory["random"]["dense"] == memory["dense"]["pruned"]
    assert memory["structured"]["pruned"] < memory["structured"]["dense"]


def test_bytes_in_memory_and_on_disk(profiles, saved):
    starts = {name: (folder / WEIGHTS).read_bytes()[:8] for name, folder in saved.items()}
    headers = {name: 8 + int.from_bytes(start, "little") for name, start in starts.items()}
    size = {name: model.profile.bytes for name, model in profiles.items()}
    assert size["dense"]["dense"] == 4 * profiles["dense"].profile.denoiser["total"]
    assert size["random"]["memory"] == size["random"]["dense"] == size["dense"]["memory"]
    assert size["structured"]["memory"] == 4 * profiles["structured"].profile.denoiser["nonzero"]
    for name in ("dense", "structured"):
        assert size[name]["disk"] == size[name]["memory"] + headers[name]
    zeros = profiles["random"].profile.prunable["total"] - profiles["random"].profile.prunable["nonzero"]
    masks = profiles["random"].profile.prunable["total"] // 8
    assert size["random"]["disk"] == size["random"]["dense"] - 4 * zeros + masks + headers["random"]


def test_full_batch_is_timed_and_is_that_many_times_the_work(profiles):
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    with ready(pipe, PROMPTS[0], SAMPLING, (1, 3)) as calls:
        for what in ("block", "denoiser"):
            assert flops(calls[3][what]) == pytest.approx(3 * flops(calls[1][what]), rel=1e-3)
    record = profiles["structured"].latency
    assert record["batch"]["size"] == SAMPLING.batch_size > 1
    alone = latency(pipe, Pruned({}), replace(SAMPLING, batch_size=1), **CHEAP)
    assert alone["batch"] == {"size": 1} | {key: alone[key] for key in alone["batch"] if key != "size"}
    assert alone["batch"].keys() == record["batch"].keys() >= {"block_ms", "block_speedup", "denoiser_ms", "speedup"}


def test_weights_are_installed_in_turns(checkpoints):
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    install = swaps(pipe, {"pruned": checkpoints["structured"]})
    with ready(pipe, PROMPTS[0], SAMPLING, [1]) as calls, torch.no_grad():
        call = calls[1]["denoiser"]
        dense = call()[0]
        install["pruned"]()
        assert not torch.equal(call()[0], dense)
        install["dense"]()
        assert torch.equal(call()[0], dense)


def test_zeros_take_turns_and_leave_the_pipeline_dense(checkpoints):
    """Seven of ten weights of every prunable layer, the smallest, and shapes as they were."""
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    before = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    zeros = zeroed(pipe)
    for name, state in zeros.states.items():
        own = before[f"{name}.weight"]
        gone = state.weight == 0
        assert gone.float().mean() == pytest.approx(0.7, abs=1 / gone.numel()) and state.weight.shape == own.shape
        assert torch.equal(state.weight[~gone], own[~gone]) and own[gone].abs().max() <= own[~gone].abs().min()
    install = swaps(pipe, {"pruned": checkpoints["structured"], "zeros": zeros})
    install["pruned"](), install["zeros"]()
    assert all(torch.equal(models.linear(pipe.transformer, n).weight, s.weight) for n, s in zeros.states.items())
    install["dense"]()
    found = latency(pipe, Pruned({}), SAMPLING, zeros, **CHEAP)
    assert found["zeros"].keys() == found.keys() - {"threads", "zeros"}
    assert all(torch.equal(before[key], value) for key, value in pipe.transformer.state_dict().items())


def test_turns_alternate_and_drift_cancels():
    begun: list[str] = []

    def turn(name: str) -> dict:
        begun.append(name)
        return {"call": lambda: None}

    times = in_turns({name: lambda name=name: turn(name) for name in "ab"}, rounds=3, seconds=1e-4)
    assert begun == ["a", "b", "b", "a", "a", "b"]
    assert {key: len(value) for key, value in times.items()} == {("a", "call"): 3, ("b", "call"): 3}
    drift, dense = np.array([1.0, 5.0, 2.0, 9.0, 3.0]), np.array([1.1, 1.0, 1.2, 0.9, 1.0])
    assert ratios(dense * drift, drift / 2) == ratios(dense, np.full(5, 0.5)) == [2.0, 2.0, 2.2]
    assert ratios(drift, drift) == [1.0, 1.0, 1.0]


def test_catching_arguments_ends_the_run_and_leaves_no_hook():
    model, ran = nn.Sequential(nn.Identity(), nn.Identity()), []
    model[0].register_forward_hook(lambda *_: ran.append("after"))
    assert caught(model[0], lambda: model(7)) == ((7,), {})
    assert not ran and model(7) == 7 and ran == ["after"]


def test_measured_sparsity_is_the_asked_one(profiles):
    assert registry.load("eval.model_metrics", "measured_sparsity").compute(profiles["random"])[0] == 0.5
    assert all(layer.sparsity == 0.5 for layer in profiles["random"].profile.layers)


def test_structured_parameters_are_gone_and_readers_have_errors(profiles):
    dense, small = profiles["dense"].profile, profiles["structured"].profile
    gone = sum(layer.removed for layer in profiles["structured"].checkpoint.layers)
    assert small.prunable["total"] - small.prunable["nonzero"] == gone
    assert small.prunable["total"] == dense.prunable["total"]
    assert 0 < len(small.layers) < len(dense.layers)
    assert all(layer.sparsity == 0.5 and 0 < layer.error < 2 for layer in small.layers)


def test_layer_error_of_zeroed_layer_is_one_and_biases_count():
    family = registry.load("obsdiff.models", "sd3")
    pipe = family.tiny()
    name = family.units(pipe.transformer)[0][0][0]
    layer = pipe.transformer.get_submodule(name)
    nothing, prompts = torch.zeros_like(layer.weight), PROMPTS[:1]
    errors = layer_errors(pipe, Pruned({name: State(nothing, None)}), prompts, SAMPLING, 0)
    assert [e.error for e in errors if e.name == name] == [pytest.approx(1, rel=1e-4)]
    assert all(e.error == 0 for e in errors if e.name != name)
    moved = State(layer.weight.detach(), layer.bias.detach() + 0.1)
    errors = layer_errors(pipe, Pruned({name: moved}), prompts, SAMPLING, 0)
    assert [e.name for e in errors if e.error > 0] == [name]


def test_flops_of_attention_are_counted_on_every_device():
    """torch counts a CPU's fused attention as nothing."""
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    expected = 2 * (2 * 3) * (5 * 7 * 8) * 2
    with torch.no_grad():
        assert flops(lambda: nn.functional.scaled_dot_product_attention(query, key, key)) == expected
    with Products() as counter:
        nn.functional.scaled_dot_product_attention(query, key, key)
    assert sum(counter.flops.values()) == expected
