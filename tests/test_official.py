"""Agreement with the paper authors' own code, to the tolerances of tests/data/official/README.md.

OBSDIFF_FIXTURES names another folder of files of that form.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from obsdiff import obs, registry
from obsdiff.patterns import unstructured
from obsdiff.statistics import Hessian

FOLDER = Path(os.environ.get("OBSDIFF_FIXTURES") or Path(__file__).parent / "data" / "official")
INDEX = json.loads((FOLDER / "index.json").read_text())


def tensor_names(entry: dict) -> list[str]:
    with safe_open(FOLDER / f"{entry['file']}.safetensors", "pt") as file:
        return list(file.keys())


UNSTRUCTURED = [entry for entry in INDEX if entry.get("pattern") == "unstructured"]
WITH_INPUTS = [entry for entry in UNSTRUCTURED if "activations" in tensor_names(entry)]
SCHEDULES = [entry for entry in INDEX if "schedule_values" in entry]


def by_name(entries: list[dict], key: str):
    return pytest.mark.parametrize("entry", entries, ids=[e[key] for e in entries])


@by_name(WITH_INPUTS, "file")
def test_accumulated_hessian(entry):
    tensors = load_file(FOLDER / f"{entry['file']}.safetensors")
    hessian = Hessian(tensors["weight"].shape[1], torch.device("cpu"))
    for x, alpha in zip(tensors["activations"], tensors["timestep_weights"], strict=True):
        hessian.add(x, float(alpha))
    assert (hessian.value() - tensors["hessian"]).norm() <= 1e-5 * tensors["hessian"].norm()


@by_name(UNSTRUCTURED, "file")
def test_unstructured(entry):
    tensors = load_file(FOLDER / f"{entry['file']}.safetensors")
    weight, hessian, official = (tensors[key] for key in ("weight", "hessian", "pruned_weight"))

    def select(scores: torch.Tensor, start: int) -> torch.Tensor:
        return unstructured.keep(scores, entry["sparsity"], "block", start)

    pruned, keep = obs.sweep(weight, obs.factor(hessian, 0.01), select, 128)
    assert ((official != 0) == keep).float().mean() >= 0.995
    assert obs.layer_error(weight, pruned, hessian) <= 1.002 * obs.layer_error(weight, official, hessian)


@by_name(SCHEDULES, "schedule_values")
def test_schedule(entry):
    weighting = registry.load("obsdiff.weightings", entry["schedule_values"].replace("-", "_"))
    alphas = weighting.alphas(entry["steps"], *entry["range"]).tolist()
    assert alphas == pytest.approx(entry["values"], abs=1e-9)
