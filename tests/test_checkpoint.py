"""What is on disk: packed weights, checkpoints that are whole or refused, runs that go on, exported folders."""

import json
from dataclasses import asdict, fields

import pytest
import torch
from conftest import spec_of
from diffusers import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st

from obsdiff import export_pruned, load_pruned, models, prune, save_pruned
from obsdiff.checkpoints import packing, progress
from obsdiff.checkpoints.manifest import ADDED, FORMAT, MANIFEST
from obsdiff.errors import CheckpointError
from obsdiff.patterns import n_m
from obsdiff.pipelines.loading import absent
from obsdiff.spec import PASSING, PruneSpec
from obsdiff.storage.files import read_json, seal, write_json

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@given(st.integers(1, 7), st.integers(1, 40), st.floats(0, 1), st.sampled_from(DTYPES), st.integers(0, 999))
def test_unstructured_comes_back_bit_for_bit(rows, columns, density, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    weight = (torch.randn(rows, columns, generator=g) * (torch.rand(rows, columns, generator=g) < density)).to(dtype)
    parts = packing.pack(weight)
    assert torch.equal(packing.unpack(parts, (rows, columns)), weight)
    assert len(parts["mask"]) == -(-rows * columns // 8) and len(parts["values"]) == int(weight.count_nonzero())


@given(
    st.integers(1, 17).flatmap(lambda n: st.tuples(st.just(n), st.integers(n + 1, 18))),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 999),
)
def test_n_m_comes_back_bit_for_bit_and_is_smaller(nm, rows, groups, zero, seed):
    """Every N:M up to 18; a kept weight that happens to be zero is no trouble."""
    n, m = nm
    weight = torch.randn(rows, groups * m, generator=torch.Generator().manual_seed(seed))
    weight *= n_m.keep(weight.abs(), 0, "row", n=n, m=m)
    if zero:
        weight[0] = 0
    parts = packing.pack(weight, n, m)
    assert torch.equal(packing.unpack(parts, (rows, groups * m), n, m), weight)
    if m <= packing.WIDEST:
        assert len(parts["values"]) == rows * groups * n
        assert len(parts["codes"]) == -(-rows * groups * packing.width(n, m) // 8) <= -(-rows * groups * m // 8)


def test_code_widths():
    assert [packing.width(*nm) for nm in ((2, 4), (4, 8), (1, 4))] == [3, 7, 2]
    with pytest.raises(ValueError, match="4 of 4 columns are nonzero, more than 2"):
        packing.pack(torch.ones(1, 4), 2, 4)


def test_checkpoint_of_another_model_is_refused_and_files_are_smaller(family, tmp_path):
    sizes = {}
    for name, more in {
        "half": {},
        "tenth": {"sparsity": 0.9},
        "2:4": {"pattern": "2:4"},
        "1:4": {"pattern": "1:4"},
        "structured": {"pattern": "structured"},
    }.items():
        pipe = family.tiny()
        save_pruned(pipe, tmp_path / name, prune(pipe, spec_of("magnitude", **more)))
        values = (tmp_path / name / "weights.safetensors").stat().st_size
        header = int.from_bytes((tmp_path / name / "weights.safetensors").read_bytes()[:8], "little")
        sizes[name] = (values - header) / (4 * sum(s[0] * s[1] for s in shapes(tmp_path / name)))
    with pytest.raises(CheckpointError, match=r"made from another .* than this pipeline's"):
        load_pruned(pipe, tmp_path / "half")
    assert sizes["half"] == pytest.approx(0.5 + 1 / 32, abs=0.005)
    assert sizes["tenth"] == pytest.approx(0.1 + 1 / 32, abs=0.005)
    assert sizes["2:4"] == pytest.approx(0.5 + 3 / 4 / 32, abs=0.005)
    assert sizes["1:4"] == pytest.approx(0.25 + 2 / 4 / 32, abs=0.005)
    assert sizes["structured"] < 0.55


def shapes(folder):
    return [layer["shape"] for layer in json.loads((folder / "manifest.json").read_text())["layers"]]


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "more",
    [{}, {"pattern": "structured", "bias": True}, {"allocation": "owl", "method": "wanda"}],
    ids=["mask", "structured", "owl"],
)
def test_killed_run_goes_on_and_gives_the_same_weights(family, tmp_path, monkeypatch, more):
    spec = spec_of(**{"method": "obs_diff", "packages": 4} | more)
    whole, broken, resumed, other = (family.tiny() for _ in range(4))
    expected = prune(whole, spec)
    assert len(expected.packages) == 4
    keep = progress.Progress.keep

    def dying(self, *arguments):
        keep(self, *arguments)
        if self.done == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "keep", dying)
        with pytest.raises(Killed):
            prune(broken, spec, tmp_path / "progress")
    report = prune(resumed, spec, tmp_path / "progress")
    left, right = (models.denoiser_of(p).state_dict() for p in (whole, resumed))
    assert all(torch.equal(left[key], right[key]) for key in left)
    same = ("layers", "sites", "packages", "statistics_bytes", "base")
    assert all(asdict(report)[key] == asdict(expected)[key] for key in same)
    assert models.denoiser_of(whole).config.get("pruned") == models.denoiser_of(resumed).config.get("pruned")
    # another spec finds nothing to go on from, and the first one's files make way
    again = prune(other, spec_of(**{"method": "obs_diff", "packages": 4, "seed": 1} | more), tmp_path / "progress")
    assert asdict(again)["layers"] != asdict(expected)["layers"]


@pytest.mark.parametrize("more", [{}, {"pattern": "2:4", "bias": True}], ids=["unstructured", "n_m"])
def test_exported_folder_opens_without_us(family, tmp_path, more):
    pipe = family.tiny()
    report = prune(pipe, spec_of("obs_diff", **more))
    export_pruned(pipe, tmp_path, report)
    again = DiffusionPipeline.from_pretrained(tmp_path, **absent(tmp_path))
    left, right = (models.denoiser_of(p).state_dict() for p in (pipe, again))
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_export_of_fewer_heads_is_refused(family, tmp_path):
    pipe = family.tiny()
    report = prune(pipe, spec_of("magnitude", pattern="heads"))
    with pytest.raises(CheckpointError, match="has 1 of 2 heads left, which a diffusers config cannot say"):
        export_pruned(pipe, tmp_path, report)
    assert not list(tmp_path.iterdir())


def test_checkpoints_without_fields_that_came_later_are_read_as_they_were_made(family, tmp_path):
    pipe, again = family.tiny(), family.tiny()
    save_pruned(pipe, tmp_path, prune(pipe, spec_of("solace", sensitivity="tokens")))
    record = read_json(tmp_path / MANIFEST)
    for name in ADDED:
        del record["spec"][name]
    write_json(tmp_path / MANIFEST, seal(record))
    manifest = load_pruned(again, tmp_path)
    assert {name: manifest.spec[name] for name in ADDED} == ADDED
    wanted, found = (models.denoiser_of(one).state_dict() for one in (pipe, again))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    write_json(tmp_path / MANIFEST, record)  # with the digest that it had
    with pytest.raises(CheckpointError, match="edited after it was written"):
        load_pruned(again, tmp_path)


def test_a_new_field_of_a_spec_says_what_checkpoints_without_it_were_made_with():
    """These are the fields that every checkpoint of format 3 has; later ones go into ADDED."""
    first = """method pattern sparsity layer_sparsity allocation exclude indivisible group compensate solver resolve
    sensitivity bias refit weighting alpha_min alpha_max alphas packages calibration_steps offload_statistics damping
    block_size seed prompts sampling"""
    assert {field.name for field in fields(PruneSpec)} - set(PASSING) == {*first.split(), *ADDED}
    assert FORMAT == 3
