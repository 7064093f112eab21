"""Specs, packages, statistics, calibration, checkpoints: what the pruning core promises beside its mathematics."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import PROMPTS, SAMPLING, spec_of
from diffusers import FlowMatchHeunDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import PruneSpec, Sampling, Source, load_pipeline, load_pruned, packages, prune, save_pruned
from obsdiff.calibration import Calibration
from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.prompts import read_prompts
from obsdiff.statistics import STATISTICS, Hessian, SquaredNorm

uniform = torch.ones


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PruneSpec(sparsity=1.4), r"sparsity: 1.4 is not in \[0, 1\)"),
        (lambda: PruneSpec(method="wandaa"), r"method: 'wandaa' unknown; did you mean 'wanda'\? \(dense, .*\)"),
        (lambda: PruneSpec(weighting="log"), r"weighting: 'log' unknown.*log_decrease"),
        (lambda: PruneSpec(pattern="2:5"), r"pattern: '2:5' unknown.*unstructured"),
        (lambda: PruneSpec(method="dense", sparsity=0.3), r"sparsity: 0.3 is not 0, the only one that method 'dense'"),
        (lambda: PruneSpec(alpha_min=1.3), r"alpha_min, alpha_max: \(1.3, 1.2\) is not 0 <"),
        (lambda: PruneSpec(packages=0), "packages: 0 is not an integer >= 1"),
        (lambda: PruneSpec(packages=True), "packages: True is not an integer"),
        (lambda: PruneSpec(damping=0), "damping: 0 is not a number > 0"),
        (lambda: Sampling(steps=0), "steps: 0 is not"),
        (lambda: Sampling(max_sequence_length=900), r"max_sequence_length: 900 is not in \[0, 512\]"),
        (lambda: Source("x/y", dtype="int8"), "dtype: 'int8' is not one of float32"),
        (lambda: load_pipeline(Source("./nowhere")), "model: './nowhere' is neither a folder nor a hub id"),
        (lambda: load_pipeline(Source("nobody/nothing")), "is not on this machine; run `hf download nobody/nothing`"),
        (lambda: read_prompts("nowhere.csv"), "prompts: 'nowhere.csv' is not a file"),
    ],
)
def test_bad_input_names_key_value_and_what_is_allowed(make, message):
    with pytest.raises(SpecError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,cat\n", "no column `caption`"),
        ("a.csv", "id,caption\n1,cat\n1,dog\n", "the id '1' twice"),
        ("a.txt", "\n\n", "holds none"),
    ],
)
def test_bad_prompt_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(SpecError, match=message):
        read_prompts(tmp_path / name)


def test_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(SpecError, match=r"has no model_index\.json"):
        load_pipeline(Source(str(tmp_path)))


def test_unsupported_pipeline_is_refused_by_class():
    with pytest.raises(SpecError, match="a dict is not supported"):
        prune({}, spec_of("magnitude"))


def test_saved_folder_loads_and_calibrating_without_prompts_is_an_error(family, tmp_path):
    family.tiny().save_pretrained(tmp_path)
    pipe = load_pipeline(Source(str(tmp_path), dtype="bfloat16"))
    assert family.denoiser(pipe).dtype == torch.bfloat16
    with pytest.raises(SpecError, match="prompts: method 'obs_diff' calibrates and was given none"):
        prune(pipe, spec_of("obs_diff", prompts=()))
    report = prune(pipe, spec_of("obs_diff", packages=2))
    assert report.sparsity == pytest.approx(0.5)


@given(st.integers(0, 40), st.integers(1, 50))
def test_packages_keep_order_and_balance(n, count):
    units = [((f"layer{i}",),) for i in range(n)]
    cut = packages.split(units, count)
    assert [unit for package in cut for unit in package] == units
    sizes = [len(package) for package in cut]
    assert len(cut) == min(n, count) and (not sizes or max(sizes) - min(sizes) <= 1)


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
    weighted = sum(
        a * x.double().reshape(-1, 5).T @ x.double().reshape(-1, 5) for a, x in zip(alphas, inputs, strict=True)
    )
    weighted /= 4 * sum(alphas)
    expected = 2 * weighted if kind == "hessian" else weighted.diagonal()
    torch.testing.assert_close(stat.value().double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stat.value(), halves.value(), rtol=1e-5, atol=1e-5)
    assert stat.value().dtype == torch.float32 and stat.bytes() == 4 * stat.value().numel()


def test_calibration_does_not_depend_on_the_batch_and_prompts_differ(family):
    pipe = family.tiny()
    denoiser = family.denoiser(pipe)
    groups = [group for unit in family.units(denoiser) for group in unit]

    def hessians(spec):
        stats = Calibration(pipe, spec, uniform).statistics(denoiser, groups, "hessian", "test")
        return torch.cat([stats[g].value().flatten() for g in groups])

    spec = spec_of("obs_diff")
    by_two, by_three = (hessians(replace(spec, sampling=replace(SAMPLING, batch_size=b))) for b in (2, 3))
    torch.testing.assert_close(by_two, by_three, rtol=1e-3, atol=1e-4)
    same_caption = hessians(replace(spec, prompts=(PROMPTS[0], PROMPTS[0])))
    one = hessians(replace(spec, prompts=(PROMPTS[0],)))
    assert not torch.allclose(same_caption, one, rtol=1e-3), "two prompts shared their noise"


def test_weighting_reaches_the_steps_in_order(family):
    """With α = 1 on one step alone, the statistic is that step's: three such sums make up the uniform one."""
    pipe = family.tiny()
    denoiser = family.denoiser(pipe)
    groups = [group for unit in family.units(denoiser)[:1] for group in unit]

    def value(alphas):
        stats = Calibration(pipe, spec_of("obs_diff"), alphas).statistics(denoiser, groups, "squared_norm", "test")
        return torch.cat([stats[g].value() for g in groups])

    single = [value(lambda steps, i=i: torch.eye(steps)[i] + 1e-12) for i in range(3)]
    torch.testing.assert_close(sum(single) / 3, value(uniform), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(single[0], single[2], rtol=1e-3)


def test_steps_of_a_sampler_that_calls_twice_a_step(family):
    """Heun goes through its loop 2·steps − 1 times: every call has an α, the first the first."""
    pipe = family.tiny()
    pipe.scheduler = FlowMatchHeunDiscreteScheduler()
    denoiser = family.denoiser(pipe)
    asked: list[int] = []

    def alphas(steps):
        asked.append(steps)
        return torch.linspace(2, 1, steps)

    first = family.units(denoiser)[0][0]
    spec = spec_of("obs_diff", prompts=("a cat",))
    stat = Calibration(pipe, spec, alphas).statistics(denoiser, [first], "squared_norm", "test")[first]
    assert asked == [2 * SAMPLING.steps - 1] * len(asked) and len(asked) == 2 * SAMPLING.steps - 1
    assert stat.weight == pytest.approx(2 * 1.5 * len(asked)), "guidance doubles the batch; the mean α is 1.5"


def test_broken_layers_are_named(family):
    pipe = family.tiny()
    denoiser = family.denoiser(pipe)
    first = family.units(denoiser)[0][0]
    calibration = Calibration(pipe, spec_of("obs_diff"), uniform)
    denoiser.register_module("unused", torch.nn.Linear(4, 4))
    with pytest.raises(LayerError, match="unused: its input was never seen"):
        calibration.statistics(denoiser, [("unused",)], "hessian", "test")
    with torch.no_grad():
        next(denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(LayerError, match=f"{first[0]}: its input held NaN"):
        calibration.statistics(denoiser, [first], "hessian", "test")


def test_canonical_spec_forgets_what_the_method_ignores():
    one, other = spec_of("magnitude", weighting="uniform"), spec_of("magnitude", packages=7, prompts=("x",))
    assert one.canonical() == other.canonical()
    assert spec_of("wanda").canonical() != spec_of("wanda", weighting="uniform").canonical()
    assert json.dumps(one.canonical())


def damage_weights(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def damage_value(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, "missing, truncated or altered"),
        (damage_value, "missing, truncated or altered"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "missing, truncated or altered"),
        (lambda folder: (folder / "manifest.json").unlink(), r"no manifest\.json"),
    ],
)
def test_damaged_checkpoint_is_refused(family, tmp_path, damage, message):
    pipe = family.tiny()
    save_pruned(pipe, tmp_path, prune(pipe, spec_of("magnitude")))
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_pruned(family.tiny(), tmp_path)


def test_checkpoint_of_another_model_is_refused_and_half_is_smaller(family, tmp_path):
    pipe = family.tiny()
    save_pruned(pipe, tmp_path / "half", prune(pipe, spec_of("magnitude")))
    with pytest.raises(CheckpointError, match="other dense weights"):
        load_pruned(pipe, tmp_path / "half")
    other = family.tiny()
    save_pruned(other, tmp_path / "tenth", prune(other, spec_of("magnitude", sparsity=0.9)))
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("half", "tenth")]
    assert sizes[1] < 0.45 * sizes[0]


def test_squared_norm_is_the_hessians_diagonal():
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    norm, hessian = SquaredNorm(6, x.device), Hessian(6, x.device)
    norm.add(x, 0.9)
    hessian.add(x, 0.9)
    torch.testing.assert_close(2 * norm.value(), hessian.value().diagonal())
