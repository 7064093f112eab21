"""Contracts of the pruning core's extension points, over whatever entries are there."""

import inspect

import pytest
import torch
from conftest import SAMPLING, combinations, entries, pattern_values, spec_of
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import (
    allocations,
    load_pruned,
    matrices,
    methods,
    models,
    patterns,
    prune,
    registry,
    save_pruned,
    weightings,
)
from obsdiff.solver.statistics import STATISTICS

PRUNING = [m for m in entries("obsdiff.methods") if methods.traits(m).prunes and not methods.traits(m).given]
MASKS = [value for value in pattern_values() if not patterns.resolve(value).structured]


@pytest.mark.parametrize("name", entries("obsdiff.weightings"))
@given(steps=st.integers(1, 60), low=st.floats(0.1, 1.0), spread=st.floats(1e-3, 3.0))
def test_weighting(name, steps, low, spread):
    alphas = weightings.alphas(name, steps, low, low + spread, (low, low + spread / 2, low + spread))
    assert alphas.shape == (steps,)
    assert torch.isfinite(alphas).all() and (alphas > 0).all()
    assert ((alphas >= low - 1e-9) & (alphas <= low + spread + 1e-9)).all() or (alphas == alphas[0]).all()
    change = torch.diff(alphas)
    assert (change >= -1e-12).all() or (change <= 1e-12).all()
    if name.endswith(("increase", "decrease")) and steps > 1:
        ends = {float(alphas[0]): "first", float(alphas[-1]): "last"}
        assert max(ends) == pytest.approx(low + spread) and min(ends) == pytest.approx(low)
        assert ends[max(ends)] == ("last" if name.endswith("increase") else "first")


def test_weighting_of_the_paper():
    """αₜ = α_min + (α_max − α_min)/ln T · ln(T − t + 1), the authors' values at 10 steps over [0.8, 1.2]."""
    alphas = weightings.alphas("log_decrease", 10, 0.8, 1.2)
    expected = [1.2, 1.181697003776, 1.161235994797, 1.138039216006, 1.111260500153, 1.079588001734]
    assert alphas[:6].tolist() == pytest.approx(expected, abs=1e-9)
    assert float(alphas[-1]) == pytest.approx(0.8)


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=30), st.integers(1, 60))
def test_table_is_taken_as_it_is_or_spread_evenly(table, steps):
    assert weightings.alphas("table", len(table), 0.8, 1.2, table).tolist() == pytest.approx(table)
    spread = weightings.alphas("table", steps, 0.8, 1.2, table)
    assert float(spread[0]) == table[0] and (steps == 1 or float(spread[-1]) == pytest.approx(table[-1]))
    assert min(table) - 1e-9 <= float(spread.min()) and float(spread.max()) <= max(table) + 1e-9


def keeper(value: str):
    pattern = patterns.resolve(value)
    keep = registry.load("obsdiff.patterns", pattern.entry).keep
    return lambda scores, sparsity, group, start=0: keep(scores, sparsity, group, start, **pattern.arguments)


@pytest.mark.parametrize("value", MASKS)
@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 9),
    sparsity=st.floats(0.0, 0.99),
    group=st.sampled_from(["row", "layer"]),
    block=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_mask_is_exact_and_takes_the_lowest(value, rows, groups, sparsity, group, block, seed):
    pattern, keep = patterns.resolve(value), keeper(value)
    multiple = pattern.multiple if pattern.multiple > 1 else 3
    columns, block = groups * multiple, block * multiple
    scores = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    sparsity = sparsity if pattern.sparsity is None else pattern.sparsity
    mask = keep(scores, sparsity, group)
    assert mask.shape == scores.shape and mask.dtype == torch.bool
    assert int((~mask).sum()) == round(rows * columns * sparsity)
    shape = (-1, multiple) if pattern.sparsity is not None else (rows, -1) if group == "row" else (1, -1)
    removed = (~mask).view(shape).sum(dim=1)
    assert int(removed.max() - removed.min()) <= (0 if pattern.sparsity is not None else 1)
    for part, kept in zip(scores.view(shape), mask.view(shape), strict=True):
        if kept.any() and not kept.all():
            assert part[~kept].max() <= part[kept].min()
    parts = [keep(scores[:, i : i + block], sparsity, "block", i) for i in range(0, columns, block)]
    assert int((~torch.cat(parts, dim=1)).sum()) == round(rows * columns * sparsity)


@pytest.mark.parametrize("name", entries("obsdiff.patterns"))
def test_pattern_states_what_it_is(name):
    traits = registry.traits("obsdiff.patterns", name, patterns.Traits)
    assert traits.kind in ("mask", "structured")
    assert (traits.kind == "mask") == hasattr(registry.load("obsdiff.patterns", name), "keep")
    assert not (traits.grouped and traits.kind == "structured")
    assert (traits.value is None) == (traits.order is None) == (not traits.form)
    if traits.kind == "structured":
        assert traits.removes and set(traits.removes) <= {"heads", "neurons"}
    else:
        assert not traits.removes


@pytest.mark.parametrize("name", entries("obsdiff.allocations"))
@given(
    measures=st.lists(st.floats(0.0, 0.3), min_size=1, max_size=12),
    sparsity=st.floats(0.01, 0.97),
    seed=st.integers(0, 99),
)
def test_allocation_keeps_the_total_and_spares_what_measures_more(name, measures, sparsity, seed):
    entry = registry.load("obsdiff.allocations", name)
    sizes = torch.randint(1, 100, (len(measures),), generator=torch.Generator().manual_seed(seed)).double()
    given = torch.tensor(measures, dtype=torch.float64)
    rising = given[:, None] * torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)
    for of in (sizes, torch.full_like(sizes, 50.0)):
        amounts = entry.allocate(rising, of, sparsity)
        assert amounts.shape == sizes.shape and ((amounts >= 0) & (amounts < 1)).all()
        assert float((amounts * of).sum()) == pytest.approx(sparsity * float(of.sum()), rel=1e-6)
    assert (amounts[given.argsort()].diff() <= 1e-9).all()


@pytest.mark.parametrize("name", entries("obsdiff.allocations"))
def test_allocation_states_what_it_is(name):
    statistic = allocations.traits(name).statistic
    assert statistic in (None, *STATISTICS)
    assert (statistic is not None) == hasattr(registry.load("obsdiff.allocations", name), "measure")


@pytest.mark.parametrize("name", entries("obsdiff.methods"))
def test_method_states_what_it_is(name):
    module, traits = registry.load("obsdiff.methods", name), methods.traits(name)
    assert traits.statistic in (None, *STATISTICS) and traits.group in ("block", "row", "layer")
    assert all(isinstance(value, bool) for value in (traits.weighted, traits.compensates, traits.prunes))
    assert traits.kinds and set(traits.kinds) <= {"mask", "structured"}
    assert not (traits.weighted and traits.statistic is None)
    scored = traits.prunes and not traits.compensates and not traits.given
    assert hasattr(module, "score") == (scored and "mask" in traits.kinds)
    assert hasattr(module, "score_columns") == (scored and "structured" in traits.kinds)
    assert not traits.compensates or traits.statistic == "hessian"


PRUNED: dict[tuple, dict[str, torch.Tensor]] = {}
"""family, method and pattern → the weights that pruning left, of what several tests need"""


@pytest.mark.parametrize(("method", "value"), combinations())
def test_method_prunes_and_reloads(method, value, family, tmp_path):
    """Counts are exact, the pruned pipeline draws through its stock class, and reloads bit for bit."""
    pipe = family.tiny()
    before = sum(p.numel() for p in models.denoiser_of(pipe).parameters())
    report = prune(pipe, spec_of(method, pattern=value, packages=2))
    denoiser = models.denoiser_of(pipe)
    PRUNED[family, method, value] = denoiser.state_dict()
    structured, traits = patterns.resolve(value).structured, methods.traits(method)
    for layer in report.layers:
        weight = models.linear(denoiser, layer.name).weight
        dense = layer.shape[0] * layer.shape[1]
        assert layer.removed == (dense - weight.numel() if structured else int((weight == 0).sum()))
        assert 0 < layer.weight_error < (float("inf") if traits.compensates else 1)
        if not structured and report.spec.allocation == "uniform":
            assert layer.removed == round(dense * report.spec.sparsity)
    if not structured:
        total = sum(layer.shape[0] * layer.shape[1] for layer in report.layers)
        assert abs(sum(layer.removed for layer in report.layers) - total * report.spec.sparsity) <= len(report.layers)
    for site in report.sites:
        assert len(site.kept) == site.groups - round(site.groups * report.spec.sparsity)
    assert bool(report.layers) == (report.spec.sparsity > 0) and bool(report.sites) == (
        structured and bool(report.layers)
    )
    after = sum(p.numel() for p in denoiser.parameters())
    assert before - after == (sum(layer.removed for layer in report.layers) if structured else 0) + lost_biases(
        report, family
    )
    assert ("pruned" in denoiser.config) == bool(report.sites)
    again = family.tiny()
    save_pruned(pipe, tmp_path, report)
    load_pruned(again, tmp_path)
    left, right = denoiser.state_dict(), models.denoiser_of(again).state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    sampling = SAMPLING
    embeds = family.encode(pipe, ["a cat"], sampling)
    one, other = (
        p(**embeds, **sampling.arguments(), generator=torch.Generator().manual_seed(0), output_type="pt").images
        for p in (pipe, again)
    )
    assert torch.isfinite(one).all() and torch.equal(one, other)


def lost_biases(report, family) -> int:
    """Biases that went with the rows of producers."""
    if not report.sites:
        return 0
    denoiser = models.denoiser_of(family.tiny())
    kept = {(site.layer, site.kind): len(site.kept) for site in report.sites}
    lost = 0
    for site in family.sites(denoiser):
        if (site.layers[0], site.kind) in kept:
            spans = [p for stream in site.streams for p in stream.producers]
            biased = sum(models.linear(denoiser, p.layer).bias is not None for p in spans)
            lost += biased * (site.groups - kept[site.layers[0], site.kind]) * site.size
    return lost


@pytest.mark.parametrize("method", PRUNING)
def test_same_seed_same_weights(method, family):
    value = "unstructured" if "mask" in methods.traits(method).kinds else "structured"

    def weights(others: int = 0) -> dict[str, torch.Tensor]:
        pipe = family.tiny()
        torch.rand(others)  # numbers that somebody else draws from torch's own generator
        prune(pipe, spec_of(method, pattern=value, packages=2))
        return models.denoiser_of(pipe).state_dict()

    left, right = PRUNED.get((family, method, value)) or weights(), weights(others=1)
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_obs_diff_with_uniform_weighting_is_sparsegpt(family):
    one, other, weighted = family.tiny(), family.tiny(), family.tiny()
    prune(one, spec_of("obs_diff", weighting="uniform", packages=1))
    prune(other, spec_of("sparsegpt", packages=1))
    prune(weighted, spec_of("obs_diff", alpha_min=0.1, alpha_max=10.0, packages=1))
    states = [models.denoiser_of(p).state_dict() for p in (one, other, weighted)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_family(family):
    """Units name layers, each once, in order of execution; layers of a group read the same input."""
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    units = models.units(family, denoiser)
    assert [unit for unit in units if unit in family.units(denoiser)] == family.units(denoiser)
    assert (units == family.units(denoiser)) != family.TRAITS.convolutions
    groups = [group for unit in units for group in unit]
    names = [name for group in groups for name in group]
    assert len(set(names)) == len(names)
    seen: dict[str, torch.Tensor] = {}

    def watch(name: str):
        def hook(_, args):
            seen.setdefault(name, args[0])

        return hook

    for name in names:
        layer = denoiser.get_submodule(name)
        assert matrices.is_layer(layer)
        layer.register_forward_pre_hook(watch(name))
    embeds = family.encode(pipe, ["a cat"], spec_of("dense").sampling)
    pipe(**embeds, **spec_of("dense").sampling.arguments(), output_type="latent")
    assert set(seen) == set(names)
    assert all(seen[name] is seen[group[0]] for group in groups for name in group)
    order = list(seen)
    ends = [max(order.index(name) for group in unit for name in group) for unit in units]
    assert ends == sorted(ends)


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


PROTOCOLS = {
    "obsdiff.methods": (methods.Scores, methods.RefinesMask, methods.ScoresColumns),
    "obsdiff.patterns": (patterns.Masks,),
    "obsdiff.allocations": (allocations.Allocation, allocations.Measures),
    "obsdiff.weightings": (weightings.Weighting,),
}


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in PROTOCOLS for name in entries(package)])
def test_functions_of_an_entry_are_those_of_its_protocol(package, name):
    """Every public function of an entry that its package calls has the protocol's parameters, then its own options."""
    entry, found = registry.load(package, name), 0
    for protocol in PROTOCOLS[package]:
        for function, stated in vars(protocol).items():
            if not function.startswith("_") and hasattr(entry, function):
                wanted = parameters(stated)
                assert parameters(getattr(entry, function))[: len(wanted)] == wanted
                found += 1
    about = methods.traits(name) if package == "obsdiff.methods" else None
    scores_nothing = about is not None and (about.compensates or about.given or not about.prunes)
    structured = package == "obsdiff.patterns" and patterns.resolve(name).structured if name != "n_m" else False
    assert found > 0 or scores_nothing or structured


def test_traits_that_are_no_literals_are_an_error_that_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "computed.py").write_text("TRAITS = Traits(weighted=1 > 0)\n")
    (tmp_path / "misspelt.py").write_text("TRAITS = Traits(wieghted=True)\n")
    monkeypatch.setattr(registry, "folder", lambda package: tmp_path)
    for name in ("computed", "misspelt"):
        with pytest.raises(TypeError, match=rf"{name}\.py: TRAITS must be Traits\(key=literal"):
            registry.traits("own", name, methods.Traits)
