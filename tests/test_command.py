"""The command line: plan, prune, inspect, export."""

import json

import pytest
from conftest import PROMPTS
from diffusers import DiffusionPipeline

from obsdiff import models, registry
from obsdiff.__main__ import main
from obsdiff.commands import valued
from obsdiff.pipelines.loading import absent

SAMPLING = ["--steps", "2", "--guidance-scale", "2", "--height", "32", "--width", "32", "--max-sequence-length", "4"]


@pytest.fixture(params=registry.names("obsdiff.models"))
def folder(request, tmp_path):
    registry.load("obsdiff.models", request.param).tiny().save_pretrained(tmp_path / "dense")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path


def pruned(folder, *more: str) -> int:
    source = ["--model", str(folder / "dense"), *SAMPLING]
    return main(["prune", *source, "--prompts-file", str(folder / "prompts.txt"), "--out", str(folder / "out"), *more])


def planned(folder, capsys, *more: str) -> dict:
    capsys.readouterr()
    assert main(["plan", "--model", str(folder / "dense"), *SAMPLING, "--as-json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "more",
    [
        ["--pattern", "structured", "--sparsity", "0.5"],
        ["--pattern", "2:4", "--packages", "unit"],
        ["--sparsity", "0.7", "--packages", "2", "--layer-sparsity", "*.ff.*", "0.3"],
        ["--method", "magnitude", "--exclude", "*.ff.*"],
    ],
    ids=["structured", "n_m", "table", "excluded"],
)
def test_plan_says_what_prune_does(folder, capsys, more):
    found = planned(folder, capsys, *more)
    assert pruned(folder, *more) == 0
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert [p["layers"] for p in found["packages"]] == manifest["packages"]
    assert max(p["statistics_bytes"] for p in found["packages"]) == manifest["statistics_bytes"]
    done = {layer["name"]: layer["removed"] / (layer["shape"][0] * layer["shape"][1]) for layer in manifest["layers"]}
    assert {name: pytest.approx(value, abs=1e-3) for name, value in found["layers"].items()} == {
        name: done[name] for name in found["layers"]
    }
    pipe = DiffusionPipeline.from_pretrained(folder / "dense", **absent(folder / "dense"))
    from obsdiff import load_pruned

    total = sum(p.numel() for p in models.denoiser_of(pipe).parameters())
    load_pruned(pipe, folder / "out")
    assert found["parameters"] == total
    zeros = 0 if manifest["sites"] else sum(layer["removed"] for layer in manifest["layers"])
    left = sum(p.numel() for p in models.denoiser_of(pipe).parameters()) - zeros
    assert found["pruned_parameters"] == pytest.approx(left, abs=len(done))
    if manifest["sites"]:
        assert found["pruned_flops"] < found["flops"] and found["theoretical_flops"] == found["pruned_flops"]
    else:
        assert found["theoretical_flops"] < found["pruned_flops"] == found["flops"]


def test_plan_opens_no_weights(folder, capsys):
    for file in (folder / "dense").rglob("*.safetensors"):
        file.unlink()
    assert planned(folder, capsys)["sampling_runs"] == 4
    assert planned(folder, capsys, "--method", "magnitude")["sampling_runs"] == 0
    assert main(["plan", "--model", str(folder / "dense"), *SAMPLING]) == 0
    out = capsys.readouterr().out
    assert "package 4: " in out and "FLOPs of one denoiser call" in out and "KiB of hessian" in out


def test_inspect_and_export(folder, capsys):
    assert pruned(folder, "--pattern", "2of4") == 0
    assert main(["inspect", str(folder / "out")]) == 0
    text = capsys.readouterr().out
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert all(layer["name"] in text for layer in manifest["layers"]) and "obs_diff, 2:4, sparsity 0.5000" in text
    assert main(["inspect", str(folder / "out"), "--as-json"]) == 0
    assert json.loads(capsys.readouterr().out) == manifest
    dense = ["--model", str(folder / "dense")]
    assert main(["export", *dense, "--checkpoint", str(folder / "out"), "--out", str(folder / "plain")]) == 0
    pipe = DiffusionPipeline.from_pretrained(folder / "plain", **absent(folder / "plain"))
    zeros = [
        float((models.linear(models.denoiser_of(pipe), x["name"]).weight == 0).float().mean())
        for x in manifest["layers"]
    ]
    assert zeros == [0.5] * len(zeros)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--model", "nowhere", "--sparsity", "1.4"], "sparsity: 1.4 is not in [0, 1)"),
        (
            ["plan", "--model", "nowhere"],
            "model: 'nowhere' has no model_index.json on this machine; give a diffusers folder",
        ),
        (["inspect", "nowhere"], "nowhere: no manifest.json; it is not a pruned checkpoint"),
        (["prune", "--model", "nowhere", "--out", "x"], "prompts: method 'obs_diff' calibrates and was given none"),
        (["export", "--model", "x", "--checkpoint", "nowhere", "--out", "y"], "nowhere: no manifest.json"),
    ],
)
def test_errors_are_one_line_and_come_before_any_weights(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not list(tmp_path.iterdir())


def test_export_of_removed_heads_is_refused_before_any_weights(folder, capsys):
    assert pruned(folder, "--method", "magnitude", "--pattern", "heads") == 0
    arguments = ["export", "--model", "nowhere", "--checkpoint", str(folder / "out"), "--out", str(folder / "plain")]
    assert main(arguments) == 2
    assert "has 1 of 2 heads left" in capsys.readouterr().err and not (folder / "plain").exists()


def test_options_that_may_be_left_to_a_method_are_flags_all_the_same():
    given = [
        "prune",
        "--bias",
        "--no-refit",
        "--resolve",
        "False",
        "--sparsity",
        "0.5",
        "--bias-free",
        "--no-compensate",
    ]
    assert list(valued(given)) == [
        *("prune", "--bias", "True", "--refit", "False", "--resolve", "False"),
        *("--sparsity", "0.5", "--bias-free", "--no-compensate"),
    ]
