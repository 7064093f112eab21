"""Malformed configs and model files: refused by key before any job, or a sweep; all that is missing is listed."""

import copy
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from malformed import count

from eval.__main__ import main
from eval.sweep import config as configs
from eval.sweep.config import read_model, read_sweep
from eval.sweep.reading import read_mapping
from obsdiff import models, registry
from obsdiff.errors import SpecError
from obsdiff.pipelines.complete import require_model
from obsdiff.pipelines.sizes import check, multiple
from obsdiff.pipelines.sources import FACTS, read_record
from obsdiff.planning.memory import counted_bytes
from obsdiff.sampling import Sampling
from obsdiff.source import Source
from obsdiff.spec import PruneSpec
from obsdiff.typed import hints

ROOT = Path(__file__).parents[1]
BASE = yaml.safe_load((ROOT / "config/config.yaml").read_text())
GRID = {"method": ["obs_diff"], "sparsity": [0.5], "pattern": ["unstructured"], "weighting": ["log_decrease"]} | {
    "packages": [4],
    "options": [{"group": "row", "alpha_min": 0.9}],
    "sampling": [{"steps": 3, "guidance_scale": 2.0, "height": 32}],
    "calibration": [{"count": 8, "choice": "hash", "sampling": {"steps": 2}}],
    "seed": [0],
}
WRONG: tuple[Any, ...] = (
    "no such",
    "",
    5,
    1.5,
    -1,
    True,
    float("nan"),
    float("inf"),
    10**400,
    [],
    {},
    ["x"],
    {"x": 1},
    None,
    "\n",
    b"x",
)
"""in the place of every value"""
Keys = tuple[str | int, ...]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def leaves(record: Any, at: Keys = ()) -> Iterator[Keys]:
    """The place of every value of a nested record, those of its mappings and lists too."""
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from leaves(value, (*at, key))


def put(record: Any, at: Keys, value: Any) -> Any:
    made = copy.deepcopy(record)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return made


def renamed(record: Any, at: Keys, name: str | None) -> Any:
    """The record with a key misspelt, or left out."""
    made = copy.deepcopy(record)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    value = inner.pop(at[-1])
    if name is not None:
        inner[name] = value
    return made


def malformed(record: dict[str, Any]) -> Iterator[tuple[Keys, Any]]:
    """Every value replaced by many others, every key misspelt and left out."""
    for at in leaves(record):
        for value in WRONG:
            yield at, put(record, at, value)
        if isinstance(at[-1], str):
            yield at, renamed(record, at, f"{at[-1]}x")
            yield at, renamed(record, at, None)


def outcomes(reader: str, record: dict[str, Any], read: Any) -> dict[str, int]:
    """How many malformed records are read as they stand and how many are refused; anything else fails the test."""
    found = {"accepted": 0, "refused": 0}
    for at, changed in malformed(record):
        names = [str(key) for key in at if isinstance(key, str)]
        try:
            result = read(changed)
        except SpecError as error:
            text = str(error)
            assert any(name in text for name in names), f"{at}: {text!r} names no key"
            assert "\n" not in text, f"{at}: {text!r} is more than one line"
            found["refused"] += 1
            count(reader, "refused")
        else:
            assert valid(result), f"{at}: {changed} was accepted"
            found["accepted"] += 1
            count(reader, "read right")
    return found


def valid(sweep: Any) -> bool:
    """Everything that the jobs would make of a sweep can be made."""
    for model in sweep.models.values():
        Source(**model["source"])
        assert isinstance(model["evaluation"]["count"], int) and isinstance(model["calibration"]["count"], int)
    for cell in sweep.cells:
        Sampling(**(sweep.models[cell.model]["sampling"] | sweep.sampling[cell.sampling]))
        axes = {"method": cell.method, "pattern": cell.pattern, "sparsity": float(cell.sparsity)}
        PruneSpec(**axes, **sweep.options[cell.options], packages=cell.packages, seed=int(cell.seed))
    return bool(sweep.cells)


@pytest.mark.malformed
def test_malformed_configs_are_refused_by_key():
    found = outcomes("configs of sweeps", BASE | {"grid": GRID}, lambda record: read_sweep(record, files=False))
    assert sum(found.values()) > 500 and found["refused"] > 8 * found["accepted"], found


@pytest.mark.malformed
def test_malformed_model_files_are_refused_by_key(monkeypatch, tmp_path):
    """The whole sweep of a model file, with what it names looked for."""
    whole = configs.read_record("emoji-sd3")
    whole["source"] |= {"device": "cpu", "offload": "none", "without": [], "variant": None, "single_file": None}
    whole["sampling"] |= {"scheduler": "euler"}
    whole["evaluation"] |= {"device": "cpu", "shards": 1, "choice": "first", "fid_references": ["paired"]}
    grid = {"method": ["dense"], "sparsity": [0.5]}
    monkeypatch.setattr(configs, "MODELS", tmp_path)

    def read(record: dict[str, Any]) -> Any:
        try:
            (tmp_path / "mine.yaml").write_text(yaml.safe_dump(record))
        except yaml.YAMLError:
            raise SpecError(" ".join(map(str, leaves(record)))) from None
        return read_sweep(BASE | {"models": ["mine"], "grid": grid})

    found = outcomes("model files of a config", whole, read)
    assert sum(found.values()) > 400 and found["refused"] > 4 * found["accepted"], found


@pytest.mark.malformed
def test_every_field_of_a_spec_refuses_every_other_type():
    """Contracts over the dataclasses: what a field does not take is refused by its name."""
    tried = 0
    for cls, rest in ((Source, {"model": "a/b"}), (Sampling, {}), (PruneSpec, {})):
        for name in hints(cls):
            for value in (object(), float("nan"), float("-inf"), 1j, {1: 2}, [[]], (None,), {"x": "y"}, b"x"):
                if name == "extra" and value == {"x": "y"}:  # for the pipeline to refuse
                    continue
                with pytest.raises(SpecError, match=name.partition("_")[0]):
                    cls(**{**rest, name: value})
                count("fields of Source, Sampling, PruneSpec", "refused")
                tried += 1
    assert tried > 200
    assert Source("a/b", without=["vae"]) == Source("a/b", without=("vae",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds nothing"),
        (b"[1]", "holds a list"),
        (b"5", "holds a single value"),
        ("family: sd3".encode("utf-16"), "not UTF-8"),
        (b"a: [1", "not YAML .line 1: expected"),
        (b"a:\n\tb: 1", r"line 2: .*'\\t'"),
        (b"a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"),
        (b"a: {b: 1, b: 1}", "the key 'b' is there twice"),
        (b"2:4: 1", "the key 2:4 is not text; put it in quotes"),
        (b"a: &x [*x]", "Circular"),
        (b"[" * 5000, "recursion|nested"),
        (b"a: !!python/object:os.system x", "could not determine a constructor"),
        (b"a: 2001-99-99", "month must be"),
    ],
)
def test_broken_yaml_is_one_line_that_names_the_file(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(configs, "MODELS", tmp_path)
    (tmp_path / "mine.yaml").write_bytes(content)
    for read in (lambda: read_mapping(tmp_path / "mine.yaml"), lambda: read_model("mine")):
        with pytest.raises(SpecError, match=message) as caught:
            read()
        assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_like_must_end_somewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "MODELS", tmp_path)
    (tmp_path / "a.yaml").write_text("like: b")
    (tmp_path / "b.yaml").write_text("like: a")
    (tmp_path / "c.yaml").write_text("like: nobody")
    (tmp_path / "d.yaml").write_text("like: [a]")
    for name, message in (
        ("a", "a → b → a go round in a circle"),
        ("c", "c.yaml: like: 'nobody' is not"),
        ("d", "like"),
    ):
        with pytest.raises(SpecError, match=message):
            read_model(name)


@pytest.mark.parametrize("name", registry.names("obsdiff.models"))
def test_sizes_are_those_that_the_pipeline_takes(name, tmp_path):
    """The multiple is what diffusers' own check refuses less than, or rounds to."""
    pipe = registry.load("obsdiff.models", name).tiny()
    pipe.save_pretrained(tmp_path)
    traits = models.traits(name)
    sides = multiple(traits, Source(str(tmp_path)))
    theirs = 8 if hasattr(pipe, "unet") else pipe.vae_scale_factor * (getattr(pipe, "patch_size", None) or 2)
    assert sides == theirs
    check(traits, Source(str(tmp_path)), Sampling(height=3 * sides, width=sides))
    with pytest.raises(SpecError, match=rf"height: {sides + 1} is not a multiple of {sides}.*give {sides}"):
        check(traits, Source(str(tmp_path)), Sampling(height=sides + 1))


def test_an_incomplete_model_is_refused_with_what_is_wrong(tmp_path):
    folder = tmp_path / "model"
    registry.load("obsdiff.models", "sd3").tiny().save_pretrained(folder)
    source = Source(str(folder))
    require_model(source, "sd3")
    with pytest.raises(SpecError, match=r"family: 'flux' is not that of .*StableDiffusion3Pipeline; give family: sd3"):
        require_model(source, "flux")
    with pytest.raises(SpecError, match="without: 'vea' is not a component"):
        require_model(Source(str(folder), without=("vea",)), "sd3")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    config, index = folder / "vae" / "config.json", folder / "model_index.json"
    for path, content, message in (
        (weights, whole[:-9], r"has [\d,]+ of [\d,]+ bytes"),
        (weights, b"x" * 100, "is not a safetensors file"),
        (weights, b"", "is not a safetensors file"),
        (weights, None, "vae holds no weights"),
        (config, b"{", r"config\.json is not JSON"),
        (config, b"[]", r"config\.json holds \[\], not a mapping"),
        (index, b"{", r"model_index\.json is not JSON"),
        (index, "{}".encode("utf-16"), r"model_index\.json is not JSON"),
    ):
        before = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(SpecError, match=message):
            require_model(source, "sd3")
        path.write_bytes(before)
    for name, message in (
        ("a/b", "run `hf download a/b`"),
        ("a/b/c", "neither a diffusers folder"),
        ("~/x", "neither"),
    ):
        with pytest.raises(SpecError, match=message):
            require_model(Source(name))
    require_model(Source("a/b", local_files_only=False))


def test_all_that_is_missing_is_listed_at_once(monkeypatch, tmp_path, capsys):
    """At full scale one line each, with sizes; the same lines are the error before any job."""
    for part in ("config", "zoo"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    table = str(Path("config/paper/table1.yaml"))
    assert main(["check", "--configfile", table]) == 2
    out, error = capsys.readouterr()
    lost = [line for line in out.splitlines() if line.startswith("missing")]
    for text in (
        "stable-diffusion-3-medium",
        "GCC",
        "captions_val2014",
        "val2014'",
        "openai",
        "inception",
        "image-rew",
    ):
        assert sum(text in line for line in lost) >= 1, text
    assert any("sd21-base.yaml, config/models/sd3-medium.yaml" in line for line in lost)
    assert any("GiB in float16)" in line and "hf download" in line for line in lost)
    assert any("device: cuda is not on this machine" in line for line in lost) and "disk: results: about" in out
    assert error.startswith(f"error: {len(lost)} things are missing")
    with pytest.raises(SpecError) as caught:
        read_sweep(BASE | yaml.safe_load(Path(table).read_text()))
    assert len(str(caught.value).splitlines()) > 6 and "GCC" in str(caught.value)
    assert main(["check", "--configfile", table, "--config", "scale=tiny"]) == 0
    out = capsys.readouterr().out
    assert "not needed: ViT-B-16-quickgelu:openai, " in out and "data/coco/val2014" in out
    assert main(["check"]) == 0 and "emoji-sd3.yaml: source.model: zoo/emoji-sd3" in capsys.readouterr().out
    assert main(["check", "--configfile", "no.yaml"]) == 2 and "Traceback" not in capsys.readouterr().err


def test_sizes_of_published_checkpoints_are_those_of_their_configurations():
    for path in FACTS.glob("*.json"):
        source = Source(path.stem.replace("--", "/", 1))
        assert read_record(path)["parameters"] == {name: size // 4 for name, size in counted_bytes(source).items()}


def test_paths_of_all_shipped_cells_are_as_they_were():
    """A change of a cell's path makes every result of it anew; this hash is not to be changed in passing."""
    paths = []
    for file in sorted((ROOT / "config").rglob("*.yaml")):
        if "models" in file.parts:
            continue
        config = BASE | yaml.safe_load(file.read_text())
        if isinstance(config["grid"], dict):
            config["grid"] = BASE["grid"] | config["grid"]
        paths += [cell.path for cell in read_sweep(config | {"scale": "tiny"}).cells]
    assert sha256(json.dumps(paths).encode()).hexdigest()[:16] == "66ae30a6822a87dc"


@pytest.mark.parametrize("key", ["exclude", "layer_sparsity"])
@pytest.mark.parametrize("where", ["pruning", "grid.options"])
def test_layers_that_a_model_does_not_have_are_refused_before_any_job(monkeypatch, key, where):
    monkeypatch.chdir(ROOT)

    def config(pattern: str) -> dict[str, Any]:
        options = {key: [pattern] if key == "exclude" else {pattern: 0.2}}
        grid = GRID | ({"options": [options]} if where == "grid.options" else {})
        return BASE | {"models": ["emoji-sd3"], "grid": grid} | ({"pruning": options} if where == "pruning" else {})

    read_sweep(config("*.ff.*"))
    with pytest.raises(
        SpecError, match=rf"{where}\.{key}: '\*\.fff\.\*' matches no layer of 'zoo/emoji-sd3'; there are"
    ):
        read_sweep(config("*.fff.*"))
