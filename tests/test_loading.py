"""Model folders as people have them: whole ones load as from_pretrained loads them, broken ones give a clear error."""

import json
import os
import shutil

import pytest
import torch
from breaks import breaks, edited, sharded, with_another
from conftest import entries
from diffusers import DiffusionPipeline
from malformed import count

from obsdiff import PruneSpec, Sampling, Source, load_pipeline, plan
from obsdiff.__main__ import main
from obsdiff.errors import SpecError
from obsdiff.pipelines.identity import identity_of
from obsdiff.pipelines.loading import absent, open_pipeline


@pytest.mark.malformed
@pytest.mark.usefixtures("counted_once")
@pytest.mark.parametrize("name", entries("obsdiff.models"))
def test_broken_folders_give_one_clear_error_or_load_as_they_were(name, folders, tmp_path, capfd):
    """No other exception, no warning, nothing on standard error, and never a pipeline that is another one."""
    dense = identity_of(load_pipeline(Source(str(folders[name]))))
    capfd.readouterr()
    wrong, refused, accepted = [], 0, []
    cases = breaks(folders[name])
    for case, (part, do) in cases.items():
        folder = tmp_path / "broken"
        shutil.copytree(folders[name], folder, copy_function=os.link)
        for file in folder.rglob("*.json"):  # links are shared: what is written to must be a file of its own
            own = file.read_bytes()
            file.unlink()
            file.write_bytes(own)
        target = folder / case.split(" ")[0].lstrip("/")
        if target.is_file() and target.suffix != ".json":
            own = target.read_bytes()
            target.unlink()
            target.write_bytes(own)
        do(folder)
        try:
            if ".json" in case:
                plan(Source(str(folder)), PruneSpec(method="magnitude"))
        except SpecError:
            pass
        except BaseException as error:
            wrong.append(f"{case}: plan: {type(error).__name__}: {error}")
        try:
            pipe = load_pipeline(Source(str(folder)))
        except SpecError as error:
            refused += 1
            count("model folders", "refused")
            if (part and part not in str(error)) or "\n" in str(error) or ";" not in str(error):
                wrong.append(f"{case}: unclear: {error}")
        except BaseException as error:
            wrong.append(f"{case}: {type(error).__name__}: {error}")
        else:
            accepted.append(case)
            count("model folders", "read right")
            if identity_of(pipe) != dense:
                wrong.append(f"{case}: loaded as another pipeline")
        shutil.rmtree(folder)
    noise = [line for line in capfd.readouterr().err.splitlines() if "%|" not in line and line.strip()]
    print(f"{name}: {len(cases)} folders, {refused} refused, {len(accepted)} loaded as they were: {accepted}")
    assert not wrong, "\n".join(wrong)
    assert not noise, "\n".join(noise)
    assert len(cases) >= 100 and refused > 0.8 * len(cases)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_whole_folders_load_as_from_pretrained_loads_them(family, dtype, folders):
    folder = folders[family.__name__.rpartition(".")[2]]
    own = load_pipeline(Source(str(folder), dtype=dtype))
    other = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), **absent(folder))
    assert type(own) is type(other) and dict(own.config).keys() == dict(other.config).keys()
    assert identity_of(own) == identity_of(other)
    assert not any(m.training for m in own.components.values() if isinstance(m, torch.nn.Module))


def test_a_safety_checker_loads(folders, tmp_path):
    """It comes from a folder of diffusers' pipelines, and its feature extractor from transformers."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    shutil.copytree(folders["sd"], folder := tmp_path / "model")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=small, vision_config=small | {"image_size": 32, "patch_size": 16})
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    CLIPImageProcessor(size=32, crop_size=32).save_pretrained(folder / "feature_extractor")
    edited(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    own = load_pipeline(Source(str(folder)))
    other = DiffusionPipeline.from_pretrained(folder)
    assert type(own.safety_checker) is type(other.safety_checker) and identity_of(own) == identity_of(other)
    less = load_pipeline(Source(str(folder), without=("safety_checker", "feature_extractor")))
    assert less.safety_checker is None and less.feature_extractor is None


def test_shards_links_and_variants_load(family, folders, tmp_path):
    name, linked = family.__name__.rpartition(".")[2], tmp_path / "linked"
    linked.mkdir()
    for path in folders[name].iterdir():
        (linked / path.name).symlink_to(path)
    dense = identity_of(open_pipeline(Source(str(folders[name]))))
    assert identity_of(open_pipeline(Source(str(linked)))) == dense
    folder = tmp_path / "model"
    shutil.copytree(folders[name], folder)
    weights = next((folder / family.TRAITS.denoiser).glob("*.safetensors"))
    shutil.copy(weights, half := weights.with_suffix(".fp16.safetensors"))
    with_another(weights)  # which the variant does not read
    assert identity_of(open_pipeline(Source(str(folder), variant="fp16"))) == dense
    with pytest.raises(
        SpecError, match=f"variant: 'fp1' is not among the weights of .*{family.TRAITS.denoiser}.*fp16.safet"
    ):
        open_pipeline(Source(str(folder), variant="fp1"))
    half.unlink()
    shutil.copy(next((folders[name] / family.TRAITS.denoiser).glob("*.safetensors")), weights)
    sharded(weights)
    assert identity_of(open_pipeline(Source(str(folder)))) == dense


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.write_text("weights"), r"is a file; give it as single_file, and as model"),
        (lambda f: f.symlink_to("/nowhere/at/all"), "is a link to a folder that is not there"),
        (lambda f: None, "is neither a folder nor a hub id"),
        (lambda f: f.mkdir(), r"has no model_index.json; give the folder that save_pretrained wrote"),
    ],
)
def test_what_is_not_a_model_folder(make, message, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(SpecError, match=message):
        load_pipeline(Source(str(tmp_path / "model")))


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", "mps", "cuda:x", "", "xpu"])
def test_a_device_that_is_not_there_is_one_line_before_weights_load(device, folders, tmp_path, capsys, monkeypatch):
    for method in ("from_pretrained", "download"):
        monkeypatch.setattr(DiffusionPipeline, method, lambda *_, **__: pytest.fail("weights were opened"))
    model = str(next(iter(folders.values())))
    arguments = ["prune", "--model", model, "--method", "magnitude", "--device", device, "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: device: ") and error.count("\n") == 1 and "Traceback" not in error


def test_classes_are_checked_before_weights_load(family, folders, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(folders[family.__name__.rpartition(".")[2]], folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    edited(folder / "model_index.json", _class_name=family.TRAITS.pipeline.replace("Pipeline", "InpaintPipeline"))
    with pytest.raises(SpecError, match=f"InpaintPipeline is not supported .*{family.TRAITS.pipeline}"):
        load_pipeline(Source(str(folder)))
    edited(folder / "model_index.json", _class_name=family.TRAITS.pipeline)
    for entry, message in (
        (["diffusers", "AutoencoderKL"], "is a AutoencoderKL; what can"),
        ([None, None], "lists no"),
    ):
        edited(folder / "model_index.json", **{family.TRAITS.denoiser: entry})
        with pytest.raises(SpecError, match=message):
            load_pipeline(Source(str(folder)))
    edited(folder / "model_index.json", **{family.TRAITS.denoiser: ["diffusers", family.TRAITS.network]})
    with pytest.raises(SpecError, match=f"without: '{family.TRAITS.denoiser}' is not a component that can be left out"):
        load_pipeline(Source(str(folder), without=(family.TRAITS.denoiser,)))
    edited(folder / family.TRAITS.denoiser / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(SpecError, match=f"{family.TRAITS.denoiser} of .* is quantised"):
        open_pipeline(Source(str(folder)))


def test_a_tokenizer_of_another_model_is_refused(family, folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folders[family.__name__.rpartition(".")[2]], folder)
    path = folder / "tokenizer/tokenizer.json"
    record = json.loads(path.read_text())
    record["model"]["vocab"] |= {f"new{i}": 1000 + i for i in range(100)}
    path.write_text(json.dumps(record))
    with pytest.raises(SpecError, match=r"tokenizer has \d+ tokens and its text encoder \d+; they do not belong"):
        load_pipeline(Source(str(folder)))


@pytest.mark.parametrize("name", entries("obsdiff.models"))
def test_sizes_that_a_pipeline_cannot_draw_are_refused_before_weights_load(name, folders, monkeypatch):
    source = Source(str(folders[name]))
    load_pipeline(source, Sampling(height=32, width=32))
    monkeypatch.setattr("obsdiff.pipelines.components.check", lambda *_, **__: pytest.fail("components were looked at"))
    with pytest.raises(SpecError, match=r"^width: 33 is not a multiple of \d+, which this pipeline needs; give \d+"):
        load_pipeline(source, Sampling(height=32, width=33))
