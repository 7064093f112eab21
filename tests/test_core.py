"""Packages, statistics, calibration, folders: what the pruning core promises beside its mathematics."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import PROMPTS, SAMPLING, spec_of
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import Source, load_pipeline, models, packages, prune
from obsdiff.calibration.runs import Calibration
from obsdiff.errors import LayerError, SpecError
from obsdiff.solver.statistics import STATISTICS, Hessian, Moments

uniform = torch.ones


def test_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(SpecError, match=r"has no model_index\.json"):
        load_pipeline(Source(str(tmp_path)))


def test_unsupported_pipeline_is_refused_by_class():
    with pytest.raises(SpecError, match="a dict is not supported"):
        prune({}, spec_of("magnitude"))


def test_saved_folder_loads_and_calibrating_without_prompts_is_an_error(family, tmp_path):
    family.tiny().save_pretrained(tmp_path)
    pipe = load_pipeline(Source(str(tmp_path), dtype="bfloat16"))
    assert models.denoiser_of(pipe).dtype == torch.bfloat16
    with pytest.raises(SpecError, match="prompts: method 'obs_diff' calibrates and was given none"):
        prune(pipe, spec_of("obs_diff", prompts=()))
    report = prune(pipe, spec_of("obs_diff", packages=2))
    assert report.sparsity == pytest.approx(0.5)


@given(st.lists(st.integers(1, 99), max_size=40), st.one_of(st.integers(1, 50), st.just("unit")))
def test_packages_keep_order_and_balance(sizes, count):
    cut = packages.split(sizes, count)
    assert [i for package in cut for i in package] == list(range(len(sizes)))
    lengths = [len(package) for package in cut]
    assert len(cut) == (len(sizes) if count == "unit" else min(len(sizes), count))
    assert not lengths or max(lengths) - min(lengths) <= 1


@given(st.lists(st.integers(1, 2**30), max_size=20), st.integers(1, 8))
def test_packages_fit_their_budget_and_none_could_take_more(sizes, budget):
    limit = budget * 2**28
    text = f"{budget / 4}GiB"
    if any(size > limit for size in sizes):
        with pytest.raises(ValueError, match="of one unit"):
            packages.split(sizes, text)
        return
    cut = packages.split(sizes, text)
    assert [i for package in cut for i in package] == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in package) for package in cut]
    assert all(load <= limit for load in loads)
    assert all(load + sizes[after.start] > limit for load, after in zip(loads, cut[1:], strict=False))


@pytest.mark.parametrize("kind", list(STATISTICS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_statistic_sums_what_its_formula_says(kind, dtype):
    g = torch.Generator().manual_seed(0)
    alphas = [1.2, 1.0, 0.8]
    inputs = [(torch.randn(4, 7, 5, generator=g) * 3).to(dtype) for _ in alphas]
    stat, halves = (STATISTICS[kind](5, torch.device("cpu")) for _ in range(2))
    for alpha, x in zip(alphas, inputs, strict=True):
        stat.add(x, alpha)
        halves.add(x[:1], alpha)
        halves.add(x[1:], alpha)
    rows = [x.double().reshape(-1, 5) for x in inputs]
    products = sum(a * x.T @ x for a, x in zip(alphas, rows, strict=True)) / (4 * sum(alphas))
    mean = sum(a * x.sum(dim=0) for a, x in zip(alphas, rows, strict=True)) / (28 * sum(alphas))
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4, check_dtype=False)
    for found in (stat.value(torch.device("cpu")), halves.value(torch.device("cpu"))):
        close(found.squared_norm, products.diagonal())
        close(found.mean, mean)
        close(found.variance, products.diagonal() / 7 - mean.square())
        assert found.tokens == pytest.approx(7) and found.mean.dtype == torch.float32
        assert (found.hessian is not None) == (kind == "hessian")
        if found.hessian is not None:
            close(found.hessian, 2 * products)
            centred = found.centred().hessian
            close(centred, 2 * (products - 7 * torch.outer(mean, mean)))
    assert STATISTICS[kind].bytes(5) >= 4 * (25 if kind == "hessian" else 5)


def test_calibration_does_not_depend_on_the_batch_and_prompts_differ(family):
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    groups = [group for unit in family.units(denoiser) for group in unit]

    def hessians(spec):
        stats = Calibration(pipe, spec, uniform).statistics(denoiser, groups, "hessian", "test")
        return torch.cat([stats[g].value(torch.device("cpu")).hessian.flatten() for g in groups])

    spec = spec_of("obs_diff")
    by_two, by_three = (hessians(replace(spec, sampling=replace(SAMPLING, batch_size=b))) for b in (2, 3))
    torch.testing.assert_close(by_two, by_three, rtol=1e-3, atol=1e-4)
    same_caption = hessians(replace(spec, prompts=(PROMPTS[0], PROMPTS[0])))
    one = hessians(replace(spec, prompts=(PROMPTS[0],)))
    assert not torch.allclose(same_caption, one, rtol=1e-3), "two prompts shared their noise"


def test_weighting_reaches_the_steps_in_order(family):
    """With α = 1 on one step alone, the statistic is that step's: one such sum a step makes up the uniform one."""
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    groups = [group for unit in family.units(denoiser)[:1] for group in unit]

    def value(alphas):
        stats = Calibration(pipe, spec_of("obs_diff"), alphas).statistics(denoiser, groups, "moments", "test")
        return torch.cat([stats[g].value(torch.device("cpu")).squared_norm for g in groups])

    whole = value(uniform)
    count = pipe.num_timesteps
    single = [value(lambda steps, i=i: torch.eye(steps)[i] + 1e-12) for i in range(count)]
    torch.testing.assert_close(sum(single) / count, whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(single[0], single[-1], rtol=1e-3)


def test_broken_layers_are_named(family):
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    first = family.units(denoiser)[0][0]
    calibration = Calibration(pipe, spec_of("obs_diff"), uniform)
    denoiser.register_module("unused", torch.nn.Linear(4, 4))
    with pytest.raises(LayerError, match="unused: its input was never seen"):
        calibration.statistics(denoiser, [("unused",)], "hessian", "test")
    name, weight = next(denoiser.named_parameters())
    with torch.no_grad():
        weight.fill_(float("nan"))
    where = f"{name.rpartition('.')[0]}: its output holds NaN or infinity at step 1 of .*prompts 1 to 2"
    with pytest.raises(LayerError, match=where):
        calibration.statistics(denoiser, [first], "hessian", "test")


def test_squared_norm_is_the_hessians_diagonal():
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    norm, hessian = Moments(6, x.device), Hessian(6, x.device)
    norm.add(x, 0.9)
    hessian.add(x, 0.9)
    torch.testing.assert_close(2 * norm.value(x.device).squared_norm, hessian.value(x.device).hessian.diagonal())


def test_offloaded_statistics_and_budgets_give_the_same_weights(family):
    made = [family.tiny() for _ in range(3)]
    reports = [
        prune(made[0], spec_of("obs_diff", packages="unit")),
        prune(made[1], spec_of("obs_diff", packages="unit", offload_statistics=True)),
        prune(made[2], spec_of("obs_diff", packages="0.00013GiB")),
    ]
    left, right = (models.denoiser_of(p).state_dict() for p in made[:2])
    assert all(torch.equal(left[key], right[key]) for key in left)
    units = family.units(models.denoiser_of(made[0]))
    assert len(reports[0].packages) == len(units) > len(reports[2].packages) > 1
    assert reports[2].statistics_bytes <= 0.00013 * 2**30
    with pytest.raises(SpecError, match=r"packages: '0.000001GiB': .* is less than the .* GiB of one unit, .*to_q"):
        prune(family.tiny(), spec_of("obs_diff", packages="0.000001GiB"))


def test_layers_of_one_input_stay_in_one_package(family):
    report = prune(family.tiny(), spec_of("obs_diff", packages=5))
    where = {name: i for i, package in enumerate(report.packages) for name in package}
    for unit in family.units(models.denoiser_of(family.tiny())):
        assert len({where[name] for group in unit for name in group}) == 1


def test_layer_sparsities_by_pattern_and_exclusion(family):
    """The first pattern that matches counts, what is excluded stays dense, one that matches nothing is an error."""
    names = packages.layers(family.units(models.denoiser_of(family.tiny())))
    first, rest = names[0], names[-1]
    table = {first: 0.25, f"{first}*": 0.9, rest: 0.75}
    pipe, dense = family.tiny(), family.tiny()
    report = prune(pipe, spec_of("magnitude", layer_sparsity=table, exclude=(names[1],)))
    found = {layer.name: layer.sparsity for layer in report.layers}
    assert found[first] == pytest.approx(0.25, abs=1e-3) and found[rest] == pytest.approx(0.75, abs=1e-3)
    assert set(names) - set(found) == {names[1]} and sorted(found.values())[1] == 0.5
    left, right = (models.linear(models.denoiser_of(p), names[1]).weight for p in (pipe, dense))
    assert torch.equal(left, right)
    for key in ("exclude", "layer_sparsity"):
        given = ("nowhere.*",) if key == "exclude" else {"nowhere.*": 0.5}
        with pytest.raises(SpecError, match=rf"{key}: 'nowhere.\*' matches no layer; there are"):
            prune(family.tiny(), spec_of("magnitude", **{key: given}))


def test_owl_shares_out_unevenly_at_the_same_total(family):
    report = prune(family.tiny(), spec_of("magnitude", allocation="owl", sparsity=0.6))
    amounts = [layer.sparsity for layer in report.layers]
    assert max(amounts) - min(amounts) > 0.02 and max(amounts) - min(amounts) <= 0.16 + 1e-2
    assert report.sparsity == pytest.approx(
        0.6, abs=len(amounts) / sum(a * b for a, b in (x.shape for x in report.layers))
    )


def test_widths_that_do_not_fit_are_refused_by_name_or_left_dense(family):
    names = packages.layers(family.units(models.denoiser_of(family.tiny())))
    with pytest.raises(LayerError, match=f"{names[0]}: its 32 columns are not a multiple of 64, as 32:64 needs"):
        prune(family.tiny(), spec_of("magnitude", pattern="32:64"))
    report = prune(family.tiny(), spec_of("magnitude", pattern="32:64", indivisible="exclude"))
    assert {layer.shape[1] for layer in report.layers} == {128}


@pytest.mark.parametrize("method", ["magnitude", "obs_diff"])
def test_bias_compensation_lowers_the_error_and_says_where(family, method):
    reports = [prune(family.tiny(), spec_of(method, bias=bias, packages=1)) for bias in (False, True)]
    denoiser = models.denoiser_of(family.tiny())
    biased = {layer.name: models.linear(denoiser, layer.name).bias is not None for layer in reports[0].layers}
    assert {layer.name: layer.bias_moved for layer in reports[1].layers} == biased and any(biased.values())
    assert not any(layer.bias_moved for layer in reports[0].layers)
    if method == "obs_diff":
        without, moved = (sum(layer.calibration_error for layer in report.layers) for report in reports)
        assert moved < without  # over all layers: the masks differ, and so one layer may lose


def test_compensation_lowers_every_layers_error(family):
    reports = [prune(family.tiny(), spec_of("obs_diff", compensate=c, packages=1)) for c in (False, True)]
    pairs = zip(*([x.calibration_error for x in r.layers] for r in reports), strict=True)
    assert all(with_ < without for without, with_ in pairs)


def test_nothing_to_remove_changes_nothing_and_needs_no_prompts(family):
    pipe, dense = family.tiny(), family.tiny()
    report = prune(pipe, spec_of("obs_diff", sparsity=0.0, prompts=()))
    left, right = (models.denoiser_of(p).state_dict() for p in (pipe, dense))
    assert not report.layers and all(torch.equal(left[key], right[key]) for key in left)
