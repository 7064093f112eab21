"""What a pipeline is: every component counts, in images' identity and as a checkpoint's base; nothing else does."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPTS, SAMPLING, spec_of
from safetensors.torch import load_file, save_file
from synthetic import manifest_of

from eval.images import generate
from obsdiff import CheckpointError, SpecError, load_pruned, models, prune, registry, save_pruned
from obsdiff.captions.prompts import Prompt
from obsdiff.pipelines import identity
from obsdiff.pipelines.identity import different, identity_of, identity_of_source
from obsdiff.pipelines.loading import open_pipeline
from obsdiff.pipelines.samplers import use
from obsdiff.source import Source
from obsdiff.storage import files

CAPTIONS = [Prompt(str(i), text) for i, text in enumerate(PROMPTS)]


def edit_json(file: str, **values: Any) -> Callable[[Path, Source], Source]:
    def edit(folder: Path, source: Source) -> Source:
        record = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(record | values))
        return source

    return edit


def edit_weight(component: str, part: str = "weight") -> Callable[[Path, Source], Source]:
    """Change one tensor of a component: the first whose name holds `part`."""

    def edit(folder: Path, source: Source) -> Source:
        (file,) = (folder / component).glob("*.safetensors")
        tensors = load_file(file)
        name = next(n for n in sorted(tensors) if part in n)
        save_file(tensors | {name: tensors[name] + 1}, file, metadata={"format": "pt"})
        return source

    return edit


def edit_vocabulary(folder: Path, source: Source) -> Source:
    path = folder / "tokenizer" / "tokenizer.json"
    text = path.read_text()
    record = json.loads(text)
    vocabulary = record["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(record))
    return source


def add_readme(folder: Path, source: Source) -> Source:
    (folder / "README.md").write_text("about")
    (folder / "vae" / ".note").write_text("about")
    return source


EDITS: dict[str, tuple[Callable[[Path, Source], Source], list[str]]] = {
    "scheduler": (edit_json("scheduler/scheduler_config.json", shift=6.0), ["scheduler"]),
    "VAE": (edit_weight("vae"), ["vae"]),
    "VAE's configuration": (edit_json("vae/config.json", scaling_factor=2.0), ["vae"]),
    "text encoder": (edit_weight("text_encoder_2"), ["text_encoder_2"]),
    "norms of the denoiser": (edit_weight("transformer", "norm_q.weight"), ["transformer"]),
    "an encoder left out": (
        lambda folder, source: replace(source, without=("text_encoder_2", "tokenizer_2")),
        ["text_encoder_2", "tokenizer_2"],
    ),
    "length of a text": (edit_json("tokenizer/tokenizer_config.json", model_max_length=8), ["tokenizer"]),
    "vocabulary": (edit_vocabulary, ["tokenizer"]),
    "dtype": (
        lambda folder, source: replace(source, dtype="bfloat16"),
        ["text_encoder", "text_encoder_2", "transformer", "vae"],
    ),
    "README": (add_readme, []),
}


def pictures(source: Source, **more: Any) -> str:
    """Identity of the images that a job would draw."""
    pipe = open_pipeline(source)
    values = {"checkpoint": manifest_of(), "prompts": CAPTIONS, "sampling": SAMPLING, "seed": 0} | more
    return generate.identity(identity_of_source(source, pipe), **values, family=models.family_of(pipe))


@pytest.fixture
def source(tmp_path) -> Source:
    registry.load("obsdiff.models", "sd3").tiny().save_pretrained(tmp_path / "dense")
    return Source(str(tmp_path / "dense"))


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_component_is_another_pipeline_and_gives_other_images(source, name):
    before, drawn = identity_of(open_pipeline(source)), pictures(source)
    edit, expected = EDITS[name]
    edited = edit(Path(source.model), source)
    pipe = open_pipeline(edited)
    assert different(before, identity_of(pipe)) == expected
    assert identity_of_source(edited, pipe) == identity_of(pipe)
    assert (pictures(edited) != drawn) == bool(expected)


def test_images_are_of_a_checkpoint_prompts_sampling_seed_code_and_libraries(source, monkeypatch, tmp_path):
    first = pictures(source)
    others = [
        pictures(source, checkpoint=manifest_of(weights_sha256="x" * 64)),
        pictures(source, prompts=CAPTIONS[:2]),
        pictures(source, sampling=replace(SAMPLING, guidance_scale=2.0)),
        pictures(source, seed=1),
    ]
    versions = files.version
    for library in ("torch", "diffusers", "transformers", "tokenizers", "pillow", "numpy"):
        with monkeypatch.context() as patch:
            patch.setattr(files, "version", lambda name, own=library: "0" if name == own else versions(name))
            others.append(pictures(source))
    whole, closure = Path.read_bytes, registry.closure("eval.images.generate", "obsdiff.models.sd3")
    for path in (p for p in closure if p.name in ("generate.py", "sampling.py", "_joint.py", "spec.py")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda self, own=path: whole(self) + b"#" * (self == own))
            others.append(pictures(source))
    assert len({first, *others}) == 1 + len(others) == 15
    monkeypatch.chdir(tmp_path)
    assert pictures(source) == first and all(path.is_file() for path in closure)


def test_an_identity_is_of_what_is_in_memory(family, tmp_path):
    """Saved and opened again it is the same; with one weight or one of its settings changed it is not."""
    pipe = family.tiny()
    first = identity_of(pipe)
    pipe.save_pretrained(tmp_path)
    again = open_pipeline(Source(str(tmp_path)))
    assert identity_of(again) == identity_of_source(Source(str(tmp_path)), again) == first
    assert all(value == "absent" or len(value) == 64 for value in first.values())
    denoiser = models.denoiser_of(pipe)
    next(denoiser.parameters()).data[0] += 1
    assert different(first, identity_of(pipe)) == [family.TRAITS.denoiser]
    for setting in again._get_signature_keys(again)[1]:
        again.register_to_config(**{setting: "other"})
        assert different(first, identity_of(again)) == ["pipeline"]


def test_a_large_model_is_read_once(source, monkeypatch):
    pipe = open_pipeline(source)
    first = identity_of_source(source, pipe)
    monkeypatch.setattr(identity, "add_tensor", lambda *_: pytest.fail("its tensors were hashed again"))
    assert identity_of_source(source, pipe) == first
    folder = Path(os.environ["OBSDIFF_CACHE"]) / "components"
    monkeypatch.undo()
    for content in ("{", "[]", "{}", '{"component": "0", "sha256": "0"}'):
        for entry in folder.iterdir():
            entry.write_text(content)
        assert identity_of_source(source, pipe) == first


def test_weights_that_cannot_be_read_are_refused_by_name(family):
    pipe = family.tiny()
    pipe.vae.to("meta")
    with pytest.raises(SpecError, match=r"model: vae\.\S+ has no weights in memory; load it without"):
        identity_of(pipe)


REFUSED = {
    "VAE": (
        edit_weight("vae"),
        "made for another vae than this pipeline's; use the pipeline it was made from, or",
    ),
    "encoder": (edit_weight("text_encoder"), "made for another text_encoder than"),
    "left out": (
        EDITS["an encoder left out"][0],
        r"text_encoder_2 \(left out here\) and tokenizer_2 \(left out here\)",
    ),
    "norms": (EDITS["norms of the denoiser"][0], "made from another transformer than this pipeline's .SHA-256 "),
    "dtype": (EDITS["dtype"][0], "made in float32, and this pipeline is in bfloat16; open it with dtype float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_checkpoint_is_refused_on_another_pipeline_by_component(source, tmp_path, name):
    pipe = open_pipeline(source)
    save_pruned(pipe, tmp_path / "half", prune(pipe, spec_of("magnitude")))
    edit, message = REFUSED[name]
    edited = edit(Path(source.model), source)
    other = open_pipeline(edited)
    before = identity_of(other)
    with pytest.raises(CheckpointError, match=message):
        load_pruned(other, tmp_path / "half")
    assert identity_of(other) == before
    if name in ("norms", "dtype"):
        with pytest.raises(CheckpointError, match=message):
            load_pruned(other, tmp_path / "half", any_components=True)
        return
    load_pruned(other, tmp_path / "half", any_components=True)
    weights = (models.denoiser_of(p).state_dict() for p in (pipe, other))
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    pipe = registry.load("obsdiff.models", "sd").tiny()
    save_pruned(pipe, tmp_path, prune(pipe, spec_of("magnitude")))
    for name, message in (("sd3", "made from a pipeline that has no transformer"), ("sdxl", "made from another unet")):
        with pytest.raises(CheckpointError, match=message):
            load_pruned(registry.load("obsdiff.models", name).tiny(), tmp_path, any_components=True)


def test_the_scheduler_is_a_choice_of_use(source, tmp_path):
    """Not of images: they are another run's; nor of calibration, whose checkpoint says which one the model had."""
    pipe = open_pipeline(source)
    report = prune(pipe, spec_of("magnitude", sampling=replace(SAMPLING, scheduler="heun")))
    assert report.base == identity_of(open_pipeline(source))
    save_pruned(pipe, tmp_path / "half", report)
    other = open_pipeline(source)
    use(other, replace(SAMPLING, scheduler="heun"))
    assert different(report.base, identity_of(other)) == ["scheduler"]
    load_pruned(other, tmp_path / "half")
