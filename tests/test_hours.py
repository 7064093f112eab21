"""Hours of a sweep: images and prunings of the cells, each counted once, at the rate that is given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.__main__ import main
from eval.sweep.config import read_sweep
from eval.sweep.hours import hours_of
from eval.sweep.overrides import sampling_of
from eval.sweep.specs import spec_of
from obsdiff import Source, plan
from obsdiff.errors import SpecError
from obsdiff.planning.effort import EFFICIENCY

ROOT = Path(__file__).parents[1]
BASE = yaml.safe_load((ROOT / "config/config.yaml").read_text())
GRID = {"method": ["magnitude", "obs_diff"], "sparsity": [0.5, 0.7], "packages": [1]}


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def hours(grid: dict[str, Any], rate: str = "1TFLOPS", **more: Any):
    config = BASE | {"grid": grid, "models": ["emoji-sd3"], "seeds": 1} | more
    return hours_of(read_sweep(config), config, rate)["emoji-sd3"]


def test_images_are_all_calls_of_the_denoiser_at_half_of_the_rate():
    found = hours(GRID, count=64)
    assert (found.cells, found.prunings, found.images) == (5, 4, 5 * 64)
    config = BASE | {"grid": GRID, "models": ["emoji-sd3"]}
    sweep = read_sweep(config)
    model = sweep.models["emoji-sd3"]
    sampling = sampling_of(model)
    one = plan(Source(**model["source"]), replace(spec_of(sweep.cells[1], sweep, config), sampling=sampling))
    assert found.drawing == pytest.approx(5 * 64 * sampling.steps * one.flops / (1e12 * EFFICIENCY["sample"]) / 3600)


def test_a_device_twice_as_fast_takes_half_of_the_time_for_images():
    slow, fast = hours(GRID), hours(GRID, "2TFLOPS")
    assert slow.drawing == pytest.approx(2 * fast.drawing) and slow.pruning > fast.pruning > 0


def test_a_shared_calibration_is_sampled_once():
    """A second sparsity of the method adds its solver alone; with several packages it samples again."""
    one, two = hours(GRID | {"sparsity": [0.5]}), hours(GRID)
    apart = [hours(GRID | {"sparsity": amounts, "packages": [4]}) for amounts in ([0.5], [0.5, 0.7])]
    assert two.pruning - one.pruning < 0.5 * one.pruning
    assert apart[1].pruning - apart[0].pruning == pytest.approx(apart[0].pruning)


def test_fewer_heads_take_less_time():
    masks = hours({"method": ["obs_diff"], "sparsity": [0.5], "packages": [1]})
    heads = hours({"method": ["obs_diff"], "pattern": ["structured"], "sparsity": [0.5], "packages": [1]})
    assert heads.drawing < masks.drawing and heads.images == masks.images


def test_the_command_line(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "models": ["emoji-sd3"], "grid": GRID}))
    assert main(["cost", "--configfile", str(tmp_path / "mine.yaml"), "--rate", "h100"]) == 0
    out = capsys.readouterr().out
    assert "On h100:" in out and "| emoji-sd3 |       5 |          4 |" in out and "Left out: loading" in out
    assert main(["cost", "--configfile", str(tmp_path / "mine.yaml"), "--rate", "abacus"]) == 2
    assert "rate: 'abacus' is not a number of TFLOP/s" in capsys.readouterr().err


def test_a_model_that_is_not_known_here_is_named():
    with pytest.raises(SpecError, match="nowhere"):
        config = BASE | {"grid": GRID, "models": ["emoji-sd3"]}
        sweep = read_sweep(config)
        sweep.models["emoji-sd3"]["source"]["model"] = "nowhere"
        hours_of(sweep, config, "1TFLOPS")
