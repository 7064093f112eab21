"""Specs: bad input is refused by key, and what a method ignores does not tell two of them apart."""

import json

import pytest
from conftest import spec_of

from obsdiff import PruneSpec, Sampling, Source, load_pipeline
from obsdiff.canonical import canonical
from obsdiff.captions.prompts import read_prompts
from obsdiff.errors import SpecError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PruneSpec(sparsity=1.4), r"sparsity: 1.4 is not in \[0, 1\)"),
        (
            lambda: PruneSpec(method="wandaa"),
            r"method: 'wandaa' unknown; did you mean 'wanda'\? \(alps, checkpoint, dense, .*\)",
        ),
        (lambda: PruneSpec(weighting="log"), r"weighting: 'log' unknown.*log_decrease"),
        (lambda: PruneSpec(pattern="4:2"), r"pattern: '4:2' unknown.*unstructured.*N:M such as 2:4"),
        (lambda: PruneSpec(pattern="structred"), r"pattern: 'structred' unknown; did you mean 'structured'"),
        (
            lambda: PruneSpec(pattern="1:4", sparsity=0.5),
            r"sparsity: 0.5 is not 0.75, the only one that pattern '1:4' has",
        ),
        (lambda: PruneSpec(method="dsnot", pattern="heads"), r"pattern: 'heads' is not served by method 'dsnot'"),
        (lambda: PruneSpec(method="l1_norm"), r"pattern: 'unstructured' is not served by method 'l1_norm'"),
        (lambda: PruneSpec(group="column"), r"group: 'column' is not one of method, block, row, layer"),
        (lambda: PruneSpec(allocation="owls"), r"allocation: 'owls' unknown; did you mean 'owl'"),
        (lambda: PruneSpec(layer_sparsity={"*.ff.*": 1}), r"layer_sparsity.\*.ff.\*: 1 is not in \[0, 1\)"),
        (
            lambda: PruneSpec(layer_sparsity={"*": 0.1}, allocation="owl"),
            "allocation: 'owl' is not free with layer_spars",
        ),
        (lambda: PruneSpec(pattern="2:4", allocation="owl"), "allocation: 'owl' is not free with 2:4; uniform"),
        (lambda: PruneSpec(weighting="table"), r"alphas: \(\) is not what weighting 'table' needs"),
        (lambda: PruneSpec(alphas=(0.0, 0.0)), "alphas: .* is not numbers >= 0, one > 0"),
        (lambda: PruneSpec(packages="2GB"), "packages: '2GB' is not an integer >= 1, 'unit' .*'2GiB'"),
        (lambda: PruneSpec(method="dense", sparsity=0.3), r"sparsity: 0.3 is not 0, the only one that method 'dense'"),
        (lambda: PruneSpec(alpha_min=1.3), r"alpha_min, alpha_max: \(1.3, 1.2\) is not 0 <"),
        (lambda: PruneSpec(packages=0), "packages: 0 is not an integer >= 1"),
        (lambda: PruneSpec(packages=True), "packages: True is not an integer"),
        (lambda: PruneSpec(token_power=2), r"token_power: 2 is not in \[0, 1\]"),
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


def test_canonical_spec_forgets_what_the_method_ignores():
    one, other = spec_of("magnitude", weighting="uniform"), spec_of("magnitude", packages=7, prompts=("x",))
    assert canonical(one) == canonical(other)
    assert canonical(spec_of("wanda")) != canonical(spec_of("wanda", weighting="uniform"))
    assert json.dumps(canonical(one))
    assert canonical(spec_of("sparsegpt", weighting="log_increase")) == canonical(spec_of("sparsegpt"))
    assert canonical(spec_of("wanda", compensate=False, damping=1.0)) == canonical(spec_of("wanda"))
    assert canonical(spec_of("obs_diff", compensate=False)) != canonical(spec_of("obs_diff"))
    assert canonical(spec_of("obs_diff", group="block")) == canonical(spec_of("obs_diff"))
    two = {"pattern": "2of4", "group": "row", "seed": 1}
    assert canonical(spec_of("obs_diff", **two)) == canonical(
        spec_of("obs_diff", **two | {"pattern": "2:4", "group": "layer"})
    )
    assert spec_of("magnitude", bias=True).calibrates and not spec_of("magnitude").calibrates
