"""Which cells calibrate together, and how often a sweep samples."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import combinations
from synthetic import cell_of

from eval.sweep.calibrations import calibration_of, shared, weights_of, weights_text
from eval.sweep.config import read_sweep
from eval.sweep.cost import described, runs_of
from eval.sweep.progress import read_config
from obsdiff import PruneSpec


def made(method: str, packages: str = "1", **more: Any):
    own = {"pattern": "unstructured", "weighting": "log_decrease"} | more
    spec = PruneSpec(method=method, packages=packages, **own)
    axes = {"pattern": spec.pattern, "weighting": spec.weighting, "packages": packages}
    return replace(cell_of(method, 0.5), **axes), spec


def test_cells_that_differ_in_method_pattern_and_sparsity_share():
    """Every weighted method with every pattern that it serves, and every option that does not weigh steps."""
    every = [made(m, pattern=p, sparsity=0.0 if m == "dense" else None) for m, p in combinations()]
    cells = [(cell, spec) for cell, spec in every if spec.calibrates]
    cells += [made("obs_diff", sparsity=0.3), made("obs_diff", exclude=("x*",)), made("wanda", allocation="owl")]
    found = shared(cells)
    weighted = {c.method for c, spec in cells if spec.traits.weighted}
    assert len(found) == 2 and {"wanda", "obs_diff", "dsnot"} <= weighted
    by_weights = {calibration.weights: {c.method for c in several} for calibration, several in found.items()}
    assert by_weights["log_decrease-0.8-1.2"] == weighted and "sparsegpt" in by_weights["uniform"]


@pytest.mark.parametrize(
    "other",
    [
        {"weighting": "linear_decrease"},
        {"alpha_min": 0.5},
        {"weighting": "table", "alphas": (1.0, 0.5)},
        {"weighting": "table", "alphas": (1.0, 0.25)},
    ],
)
def test_other_weights_of_steps_are_another_calibration(other):
    cells = [made("obs_diff"), made("obs_diff", **other), made("obs_diff", weighting="table", alphas=(1.0, 2.0))]
    assert len(shared(cells)) == 3


@pytest.mark.parametrize("axis", ["model", "sampling", "calibration", "seed"])
def test_another_model_sampling_or_seed_is_another_calibration(axis):
    cell, spec = made("obs_diff")
    assert len(shared([(cell, spec), (replace(cell, **{axis: "1"}), spec)])) == 2


def test_uniform_weights_are_those_of_a_method_without_any():
    alone, both = [made("sparsegpt")], [made("sparsegpt"), made("obs_diff", weighting="uniform")]
    assert shared(both).keys() == shared(alone).keys()
    assert weights_text(weights_of(made("sparsegpt")[1])) == "uniform"


def test_one_trajectory_serves_all_weights_and_several_packages_share_nothing():
    cells = [made(m, "sequential", weighting=w) for m in ("wanda", "sparsegpt") for w in ("uniform", "log_decrease")]
    (calibration,) = shared(cells)
    assert calibration.weights == "any" and "packages-sequential" in calibration.path
    assert not any(calibration_of(*made("obs_diff", packages)) for packages in ("2", "unit", "2GiB"))
    assert calibration_of(*made("magnitude")) is None


@pytest.mark.parametrize(
    ("config", "packages", "alone", "once", "walks"),
    [
        ("config/paper/table1.yaml", "4", 96, 96, 0),
        ("config/paper/table1.yaml", "sequential", 24, 4, 24),
        ("config/paper/table3.yaml", "4", 12, 12, 0),
        ("config/paper/table3.yaml", "sequential", 3, 1, 3),
        ("config/config.yaml", "1", 25, 3, 5),
    ],
)
def test_sampling_runs_of_the_papers_tables(config, packages, alone, once, walks):
    """docs/paper.md says these."""
    made = read_config([Path(config)] if "paper" in config else [], [f"packages={packages}"])
    found = runs_of(read_sweep(made, files=False), made).values()
    totals = [sum(getattr(runs, name) for runs in found) for name in ("alone", "made", "walks")]
    assert totals == [alone, once, walks]
    assert f"| {alone}" in " ".join(described(made).split())


def test_files_of_the_paper_say_four_packages_themselves():
    """config.yaml's default of one would else be theirs."""
    for table in (1, 3):
        config = read_config([Path(f"config/paper/table{table}.yaml")], [])
        sweep = read_sweep(config, files=False)
        assert {cell.packages for cell in sweep.cells if cell.method == "obs_diff"} == {"4"}
