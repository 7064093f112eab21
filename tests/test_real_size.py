"""The benchmark of real sizes: what it builds has the shapes that it says, what it watches is measured."""

import sys

import pytest
import torch

from benchmarks import shapes
from benchmarks.real_size import Row, flags, spec_of, table, watched
from obsdiff import Source
from obsdiff.pipelines.loading import configuration


@pytest.mark.parametrize("model", shapes.HUB)
def test_shapes_are_those_that_ship(model):
    whole, cut = shapes.denoiser_config(model, None), shapes.denoiser_config(model, 2)
    assert whole == configuration(Source(shapes.HUB[model]), "transformer/config.json")
    assert {k: v for k, v in cut.items() if not k.startswith("num_") or not k.endswith("layers")} == {
        k: v for k, v in whole.items() if not k.startswith("num_") or not k.endswith("layers")
    }
    assert cut["num_layers"] == 2 < whole["num_layers"]


def test_networks_are_filled_whatever_their_size(monkeypatch):
    monkeypatch.setattr(shapes, "BUFFER", 1000)
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Linear(64, 50), torch.nn.Linear(5, 7))
    made = shapes.filled(network, "cpu")
    assert [layer.weight.device.type for layer in made] == ["cpu", "cpu"] and not made[0].bias.any()
    assert float(made[0].weight.detach().std()) == pytest.approx(64**-0.5, rel=0.1) and made[0].weight.isfinite().all()
    assert not torch.equal(made[0].weight[:20], made[0].weight[20:40])


def test_a_command_is_watched_until_it_ends():
    seconds, peak = watched([sys.executable, "-c", "import time; x = bytearray(200 << 20); time.sleep(0.5)"])
    assert seconds > 0.5 and 200 << 20 < peak < 300 << 20
    with pytest.raises(SystemExit, match="no such thing"):
        watched([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_options_and_table_hold_what_was_asked():
    spec = spec_of("2:4", "2", 3, 64, 5, 2)
    said = flags(Source("folder", dtype="bfloat16"), spec)
    pairs = dict(zip(said[::2], said[1::2], strict=True))
    assert pairs["--pattern"] == "2:4" and pairs["--steps"] == "3" and pairs["--height"] == "64"
    assert len(set(spec.prompts)) == 5
    memory = dict.fromkeys(("loading", "encoding", "calibration", "saving"), 2**30) | {"solving": 3 * 2**30}
    minutes = {"encode": 1.0, "sample": 1.5, "statistics": 0.5, "solve": 3.0}
    row = Row("2:4", "2", {"memory": memory, "minutes": minutes}, 1.0, 200.0, {"calibrate": 100.0}, 2 * 2**30)
    line = table([row])[-1]
    assert "120.0 → 100.0" in line and "3.00 → 2.00" in line and "+50%" in line
