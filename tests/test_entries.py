"""Contracts of the pruning core's extension points, over whatever entries are there."""

import pytest
import torch
from conftest import entries, spec_of
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import load_pruned, prune, registry, save_pruned
from obsdiff.statistics import STATISTICS

PRUNING = [m for m in entries("obsdiff.methods") if registry.constants("obsdiff.methods", m)["PRUNES"]]


@pytest.mark.parametrize("name", entries("obsdiff.weightings"))
@given(steps=st.integers(1, 60), low=st.floats(0.1, 1.0), spread=st.floats(1e-3, 3.0))
def test_weighting(name, steps, low, spread):
    alphas = registry.load("obsdiff.weightings", name).alphas(steps, low, low + spread)
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
    alphas = registry.load("obsdiff.weightings", "log_decrease").alphas(10, 0.8, 1.2)
    expected = [1.2, 1.181697003776, 1.161235994797, 1.138039216006, 1.111260500153, 1.079588001734]
    assert alphas[:6].tolist() == pytest.approx(expected, abs=1e-9)
    assert float(alphas[-1]) == pytest.approx(0.8)


@pytest.mark.parametrize("name", entries("obsdiff.patterns"))
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 33),
    sparsity=st.floats(0.0, 0.99),
    group=st.sampled_from(["row", "layer"]),
    block=st.integers(1, 33),
    seed=st.integers(0, 999),
)
def test_pattern_is_exact_and_takes_the_lowest(name, rows, columns, sparsity, group, block, seed):
    keep = registry.load("obsdiff.patterns", name).keep
    scores = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    mask = keep(scores, sparsity, group, 0)
    assert mask.shape == scores.shape and mask.dtype == torch.bool
    assert int((~mask).sum()) == round(rows * columns * sparsity)
    compared = scores if group == "row" else scores.view(1, -1)
    for row, kept in zip(compared, mask.view_as(compared), strict=True):
        if kept.any() and not kept.all():
            assert row[~kept].max() <= row[kept].min()
    if group == "row":
        removed = (~mask).sum(dim=1)
        assert int(removed.max() - removed.min()) <= 1
    parts = [keep(scores[:, i : i + block], sparsity, "block", i) for i in range(0, columns, block)]
    assert int((~torch.cat(parts, dim=1)).sum()) == round(rows * columns * sparsity)


@pytest.mark.parametrize("name", entries("obsdiff.methods"))
def test_method_states_what_it_is(name):
    module, facts = registry.load("obsdiff.methods", name), registry.constants("obsdiff.methods", name)
    assert facts["STATISTIC"] in (None, *STATISTICS) and facts["GROUP"] in ("block", "row", "layer")
    assert all(isinstance(facts[key], bool) for key in ("WEIGHTED", "COMPENSATES", "PRUNES"))
    assert not (facts["WEIGHTED"] and facts["STATISTIC"] is None)
    assert facts["COMPENSATES"] != hasattr(module, "score")
    assert not facts["COMPENSATES"] or facts["STATISTIC"] == "hessian"


@pytest.mark.parametrize("pattern", entries("obsdiff.patterns"))
@pytest.mark.parametrize("method", entries("obsdiff.methods"))
def test_method_prunes_and_reloads(method, pattern, family, tmp_path):
    pipe = family.tiny()
    report = prune(pipe, spec_of(method, pattern=pattern))
    denoiser = family.denoiser(pipe)
    zeros = {layer.name: int((denoiser.get_submodule(layer.name).weight == 0).sum()) for layer in report.layers}
    assert {layer.name: layer.removed for layer in report.layers} == zeros
    for layer in report.layers:
        assert layer.removed == round(layer.shape[0] * layer.shape[1] * report.spec.sparsity)
        assert 0 < layer.weight_error < 1
    assert bool(report.layers) == (report.spec.sparsity > 0)
    again = family.tiny()
    save_pruned(pipe, tmp_path, report)
    load_pruned(again, tmp_path)
    left, right = denoiser.state_dict(), family.denoiser(again).state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("method", PRUNING)
def test_same_seed_same_weights(method, family):
    one, other = family.tiny(), family.tiny()
    for pipe in (one, other):
        prune(pipe, spec_of(method))
    left, right = (family.denoiser(p).state_dict() for p in (one, other))
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_obs_diff_with_uniform_weighting_is_sparsegpt(family):
    one, other, weighted = family.tiny(), family.tiny(), family.tiny()
    prune(one, spec_of("obs_diff", weighting="uniform", packages=1))
    prune(other, spec_of("sparsegpt", packages=1))
    prune(weighted, spec_of("obs_diff", alpha_min=0.1, alpha_max=10.0, packages=1))
    states = [family.denoiser(p).state_dict() for p in (one, other, weighted)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_family(family):
    """Units name linear layers, each once, in order of execution; layers of a group read the same input."""
    pipe = family.tiny()
    denoiser = family.denoiser(pipe)
    groups = [group for unit in family.units(denoiser) for group in unit]
    names = [name for group in groups for name in group]
    assert len(set(names)) == len(names)
    seen: dict[str, torch.Tensor] = {}

    def watch(name: str):
        def hook(_, args):
            seen.setdefault(name, args[0])

        return hook

    for name in names:
        layer = denoiser.get_submodule(name)
        assert isinstance(layer, torch.nn.Linear)
        layer.register_forward_pre_hook(watch(name))
    embeds = family.encode(pipe, ["a cat"], spec_of("dense").sampling)
    pipe(**embeds, **spec_of("dense").sampling.arguments(), output_type="latent")
    assert set(seen) == set(names)
    assert all(seen[name] is seen[group[0]] for group in groups for name in group)
    order = list(seen)
    ends = [max(order.index(name) for group in unit for name in group) for unit in family.units(denoiser)]
    assert ends == sorted(ends)
