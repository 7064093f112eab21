"""Solace and its ingredients: each does its part, off they are the baseline, and a killed run goes on."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from conftest import SAMPLING, spec_of
from parts import weights_of

from obsdiff import methods, models, prune, registry
from obsdiff.calibration.runs import Calibration
from obsdiff.calibration.stored import trajectory_of
from obsdiff.canonical import canonical
from obsdiff.errors import SpecError
from obsdiff.packages import layers
from obsdiff.solver.statistics import Hessian
from obsdiff.solving import solve_layer
from obsdiff.spec import SENSITIVITIES, PruneSpec

CPU = torch.device("cpu")
SHORT = replace(SAMPLING, steps=3, batch_size=2)
PROMPTS = ("a cat", "two dogs", "red")


def short(**more) -> PruneSpec:
    return spec_of("solace", **{"prompts": PROMPTS, "sampling": SHORT} | more)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "structured"])
def test_each_ingredient_changes_the_result_and_off_it_is_the_baseline(family, pattern):
    """Every option away, what is left is sequential ALPS, or OBS with heads and neurons."""

    def pruned(**more):
        pipe = family.tiny()
        prune(pipe, short(pattern=pattern, sparsity=None if pattern == "2:4" else 0.5, **more))
        return weights_of(pipe)

    on = {"sensitivity": "both", "refit": True, "calibration_steps": 2}
    off = {"sensitivity": "none", "refit": False, "allocation": "uniform", "calibration_steps": 0}
    whole, plain = pruned(**on), pruned(**off)
    for key, value in off.items():
        same = (key == "refit" and not family.TRAITS.last) or (key == "allocation" and pattern != "unstructured")
        found = pruned(**on | {key: value})
        assert any(not torch.equal(found[name], whole[name]) for name in whole) != same, key
    pipe = family.tiny()
    method = "sparsegpt" if pattern == "structured" else "alps"
    more = {"prompts": PROMPTS, "sampling": SHORT, "sparsity": None if pattern == "2:4" else 0.5}
    prune(pipe, spec_of(method, pattern=pattern, packages="sequential", calibration_steps=0, **more))
    expected = weights_of(pipe)
    assert all(torch.equal(plain[name], expected[name]) for name in plain)


@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_tokens_and_rows_are_each_weighed_only_where_asked_for(family, pattern):
    found = {}
    for value in SENSITIVITIES:
        pipe = family.tiny()
        prune(pipe, short(pattern=pattern, sparsity=0.5, sensitivity=value, allocation="uniform", refit=False))
        found[value] = torch.cat([weight.flatten() for weight in weights_of(pipe).values()])
    assert not any(torch.equal(found[one], found[other]) for one, other in combinations(SENSITIVITIES, 2))


@pytest.mark.parametrize("choice", [{"pattern": "2:4"}, {"group": "row", "allocation": "uniform"}])
@pytest.mark.parametrize("method", ["alps", "obs_diff", "magnitude", "dsnot"])
def test_where_rows_do_not_compete_their_weights_change_no_mask(method, choice):
    """Why such a run does not measure them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 16, generator=generator)
    inputs = torch.randn(64, 16, generator=generator)
    statistic = Hessian(16, CPU)
    statistic.add(inputs, 1.0)
    rows = torch.rand(12, generator=generator) + 0.1
    spec = spec_of(method, **choice)
    assert canonical(replace(spec, packages="sequential", sensitivity="both")) == canonical(
        replace(spec, packages="sequential", sensitivity="tokens")
    )
    entry = registry.load("obsdiff.methods", method)
    parts = (weight, statistic.value(CPU, 0.01), entry, spec, 0.5, generator)
    alike, weighed = solve_layer(*parts), solve_layer(*parts, rows)
    assert torch.equal(alike.keep, weighed.keep)
    torch.testing.assert_close(alike.weight, weighed.weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "choice", [{}, {"group": "layer"}, {"pattern": "structured"}, {"group": "row", "allocation": "owl"}]
)
def test_where_rows_compete_their_weights_count(choice):
    assert short(sensitivity="rows", **choice).weighed == "rows"


@pytest.mark.parametrize("value", SENSITIVITIES)
def test_the_power_of_token_weights_counts_where_tokens_do(value):
    one, other = (canonical(short(sensitivity=value, token_power=power)) for power in (0.5, 1.0))
    assert (one != other) == (value in ("tokens", "both"))


def test_defaults_of_a_method_for_heads_and_neurons():
    traits = methods.traits("solace")
    mask, structured = short(sparsity=0.5), short(pattern="structured", sparsity=0.5)
    for key, value in traits.structured.items():
        assert getattr(structured, key) == value != getattr(mask, key)
    assert short(pattern="structured", sparsity=0.5, refit=True).refit


def test_a_killed_run_goes_on_to_the_same_weights(family, tmp_path, monkeypatch):
    from obsdiff import running

    spec, expected = short(), family.tiny()
    report = prune(expected, spec)
    solved, turns = running.prune_target, []

    def killed(denoiser, target, problem):
        turns.append(target)
        if len(turns) == 4:
            raise KeyboardInterrupt
        return solved(denoiser, target, problem)

    with monkeypatch.context() as patch:
        patch.setattr(running, "prune_target", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(family.tiny(), spec, tmp_path)
    for _ in range(2):  # the second time every package is finished, and the last layer is fitted again
        pipe = family.tiny()
        again = prune(pipe, spec, tmp_path)
        assert again.layers == report.layers and again.refitted == report.refitted
        found, wanted = weights_of(pipe), weights_of(expected)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_fitting_the_last_layer_brings_the_output_nearer(family):
    if family.TRAITS.last is None:
        pipe = family.tiny()
        assert prune(pipe, short()).refitted == []
        return
    outputs = {}
    for refit in (False, True):
        pipe = family.tiny()
        spec = short(refit=refit, calibration_steps=0, sensitivity="none", allocation="uniform")
        trajectory = trajectory_of(spec, {}, None)
        dense = family.tiny()
        with torch.no_grad():
            trajectory.record(Calibration(dense, spec), models.denoiser_of(dense))
            report = prune(pipe, spec)
            errors = [
                trajectory.run(call, models.denoiser_of(pipe), CPU)[0]
                - trajectory.run(call, models.denoiser_of(dense), CPU)[0]
                for call in trajectory.calls()
            ]
        outputs[refit] = sum(float(e.square().sum()) for e in errors)
        assert report.refitted == ([family.TRAITS.last] if refit else [])
        assert family.TRAITS.last not in layers(family.units(models.denoiser_of(pipe)))
    assert outputs[True] < outputs[False]


@pytest.mark.parametrize("key", [{"sensitivity": "rows"}, {"refit": True}, {"calibration_steps": 2}])
def test_what_needs_the_trajectory_says_so(key):
    with pytest.raises(SpecError, match=r"is not possible with packages 4; give packages: sequential"):
        spec_of("obs_diff", packages=4, **key)


def test_a_method_with_other_packages_leaves_out_what_needs_the_trajectory():
    spec = PruneSpec(method="solace", packages=4)
    assert (spec.sensitivity, spec.refit, spec.calibration_steps) == ("none", False, 0)
    assert PruneSpec(method="solace", pattern="2:4").allocation == "uniform"
    assert PruneSpec(method="solace").packages == "sequential"


@pytest.mark.parametrize(("steps", "half"), [(1, 1), (2, 1), (7, 4), (28, 14)])
def test_sequential_calibrates_on_half_of_the_steps_unless_told_otherwise(steps, half):
    """A walk over all of them costs 1.6 times one package; a method's own number and a stated one come first."""
    sampling = replace(SHORT, steps=steps)
    found = spec_of("obs_diff", packages="sequential", sampling=sampling)
    assert found.calibration_steps == half
    assert canonical(found)["calibration_steps"] == half
    assert spec_of("solace", sampling=sampling).calibration_steps == 2
    assert spec_of("obs_diff", packages="sequential", calibration_steps=0, sampling=sampling).calibration_steps == 0
    for spec in (spec_of("obs_diff", sampling=sampling), spec_of("magnitude", packages="sequential")):
        assert canonical(spec)["calibration_steps"] == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_batches_calibrate_on_spread_and_different_steps(steps):
    spec = short(calibration_steps=steps, prompts=tuple(map(str, range(12))))
    trajectory = trajectory_of(spec, {}, None)
    trajectory.steps = 12
    found = [set(range(12)) & set(trajectory.chosen_steps(batch)) for batch in range(6)]
    assert all(len(chosen) == steps for chosen in found)
    if steps < 12:
        assert len({tuple(sorted(chosen)) for chosen in found}) > 1
        gaps = [b - a for chosen in found for a, b in zip(sorted(chosen), sorted(chosen)[1:], strict=False)]
        assert not gaps or min(gaps) >= 12 // steps
