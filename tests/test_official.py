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

from obsdiff import patterns, registry, weightings
from obsdiff.solver import elimination, factors, obs
from obsdiff.solver.statistics import Hessian

FOLDER = Path(os.environ.get("OBSDIFF_FIXTURES") or Path(__file__).parent / "data" / "official")
INDEX = json.loads((FOLDER / "index.json").read_text())


def tensor_names(entry: dict) -> list[str]:
    with safe_open(FOLDER / f"{entry['file']}.safetensors", "pt") as file:
        return list(file.keys())


LAYERS = [entry for entry in INDEX if "pattern" in entry]
WITH_INPUTS = [entry for entry in LAYERS if "activations" in tensor_names(entry)]
STRUCTURED = [entry for entry in LAYERS if "removed" in entry]
MASKED = [entry for entry in LAYERS if entry not in STRUCTURED]
SCHEDULES = [entry for entry in INDEX if "schedule_values" in entry]


def by_name(entries: list[dict], key: str):
    return pytest.mark.parametrize("entry", entries, ids=[e[key] for e in entries])


@by_name(WITH_INPUTS, "file")
def test_accumulated_hessian(entry):
    tensors = load_file(FOLDER / f"{entry['file']}.safetensors")
    hessian = Hessian(tensors["weight"].shape[1], torch.device("cpu"))
    for x, alpha in zip(tensors["activations"], tensors["timestep_weights"], strict=True):
        hessian.add(x, float(alpha))
    value = hessian.value(torch.device("cpu")).hessian
    assert (value - tensors["hessian"]).norm() <= 1e-5 * tensors["hessian"].norm()


@by_name(MASKED, "file")
def test_mask(entry):
    tensors = load_file(FOLDER / f"{entry['file']}.safetensors")
    weight, hessian, official = (tensors[key] for key in ("weight", "hessian", "pruned_weight"))
    pattern = patterns.resolve(entry["pattern"])

    def select(scores: torch.Tensor, start: int) -> torch.Tensor:
        entry_point = registry.load("obsdiff.patterns", pattern.entry)
        return entry_point.keep(scores, entry["sparsity"], "block", start, **pattern.arguments)

    stride = pattern.multiple if pattern.multiple > 1 else None
    pruned, keep, _ = obs.sweep(weight, factors.factor(hessian, 0.01), select, 128, stride)
    assert ((official != 0) == keep).float().mean() >= 0.995
    assert obs.layer_error(weight, pruned, hessian) <= 1.002 * obs.layer_error(weight, official, hessian)


@by_name(STRUCTURED, "file")
def test_removed_columns(entry):
    """Joint attention ranks both streams together: the sum of their relative errors is held to the official one."""
    tensors = load_file(FOLDER / f"{entry['file']}.safetensors")
    streams = [""] + ["_context"] * ("weight_context" in tensors)
    size = entry.get("head_dim", 1)
    problems = [
        elimination.Problem(tensors[f"weight{s}"], factors.factor(tensors[f"hessian{s}"], 0.01)) for s in streams
    ]
    groups = problems[0].weight.shape[1] // size
    pruned, kept = elimination.eliminate(problems, size, groups, len(tensors["removed_columns"]) // size)
    assert (groups - len(kept)) * size == len(tensors["removed_columns"]) == entry["removed"]
    error, theirs = 0.0, 0.0
    for stream, problem, weight in zip(streams, problems, pruned, strict=True):
        hessian, official = tensors[f"hessian{stream}"], tensors[f"pruned_weight{stream}"]
        error += obs.layer_error(problem.weight, weight, hessian)
        theirs += obs.layer_error(problem.weight, official, hessian)
        assert int((weight == 0).all(dim=0).sum()) == entry["removed"]
    assert error <= 1.001 * theirs


@by_name(SCHEDULES, "schedule_values")
def test_schedule(entry):
    alphas = weightings.alphas(entry["schedule_values"].replace("-", "_"), entry["steps"], *entry["range"]).tolist()
    assert alphas == pytest.approx(entry["values"], abs=1e-9)
