"""Weights in one file beside a folder of configurations: the same pipeline as the folder with its own weights."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from eval.sweep import config as configs
from eval.sweep import dag
from obsdiff import PruneSpec, Source, export_denoiser, load_pruned, plan, registry
from obsdiff.__main__ import main
from obsdiff.commands import dispatch
from obsdiff.errors import CheckpointError, SpecError
from obsdiff.pipelines.complete import require_model
from obsdiff.pipelines.identity import identity_of, identity_of_source
from obsdiff.pipelines.loading import open_pipeline
from obsdiff.pipelines.sources import component_files

Tensors = dict[str, torch.Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
NAMED = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
NAMED |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
MID = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
VAE = {
    "down_blocks.": "down.",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    ".resnets.": ".block.",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def original_unet(name: str, layers: int) -> str:
    """A tensor of a UNet as the code that trained Stable Diffusion 1 and 2 names it."""
    for ours, theirs in NAMED.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    side, _, rest = name.partition(".")
    if side == "mid_block":
        kind = ".".join(rest.split(".")[:2])
        return f"middle_block.{MID[kind]}.{inner(rest.removeprefix(f'{kind}.'), kind)}"
    block, kind, number, end = rest.split(".", 3)
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.op.{end.removeprefix('conv.')}"
    if kind == "upsamplers":
        at = (int(block) + 1) * (layers + 1) - 1
        return f"output_blocks.{at}.{2 if int(block) == 0 else 1}.{end}"
    place = "01"[kind == "attentions"]
    if side == "down_blocks":
        return f"input_blocks.{1 + int(block) * (layers + 1) + int(number)}.{place}.{inner(end, kind)}"
    return f"output_blocks.{int(block) * (layers + 1) + int(number)}.{place}.{inner(end, kind)}"


def inner(name: str, kind: str) -> str:
    if not kind.startswith("resnets"):
        return name
    part, _, end = name.rpartition(".")
    return f"{RESNET[part]}.{end}"


def original_vae(name: str, depth: int) -> str:
    """A tensor of a VAE in the same code, whose decoder counts its blocks from the image."""
    for i in range(depth):
        name = name.replace(f"up_blocks.{i}.", f"up.{depth - 1 - i}.")
    for ours, theirs in VAE.items():
        name = name.replace(ours, theirs)
    return name


def original(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The whole of a Stable Diffusion in one file, as it was first published."""
    about = {part: json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae")}
    layers = about["unet"]["layers_per_block"]
    for name, tensor in weights(folder / "unet").items():
        yield f"model.diffusion_model.{original_unet(name, layers)}", tensor
    for name, tensor in weights(folder / "vae").items():
        theirs = original_vae(name, len(about["vae"]["block_out_channels"]))
        is_conv = ".mid.attn_1." in theirs and theirs.endswith("weight") and ".norm." not in theirs
        yield f"first_stage_model.{theirs}", tensor[:, :, None, None].clone() if is_conv else tensor
    for name, tensor in weights(folder / "text_encoder").items():
        yield f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}", tensor


def weights(folder: Path) -> Tensors:
    return {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}


def without_weights(folder: Path, *parts: str) -> None:
    for part in parts:
        for path in (folder / part).glob("*.safetensors"):
            path.unlink()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_denoiser_in_one_file_is_that_of_the_folder(family, dtype, folders, tmp_path):
    name, denoiser = family.__name__.rpartition(".")[2], family.TRAITS.denoiser
    shutil.copytree(folders[name], folder := tmp_path / "model")
    file = tmp_path / "denoiser.safetensors"
    shutil.move(next((folder / denoiser).glob("*.safetensors")), file)
    source = Source(str(folder), single_file=str(file), dtype=dtype)
    require_model(source, name)
    pipe = open_pipeline(source)
    assert identity_of(pipe) == identity_of(open_pipeline(Source(str(folders[name]), dtype=dtype)))
    assert identity_of_source(source, pipe) == identity_of(pipe)
    assert not any(m.training for m in pipe.components.values() if isinstance(m, torch.nn.Module))


def test_all_of_a_stable_diffusion_in_one_file(folders, tmp_path):
    """The folder has configurations and the tokenizer alone; the command line prunes what it opens."""
    shutil.copytree(folders["sd"], folder := tmp_path / "model")
    without_weights(folder, "unet", "vae", "text_encoder")
    save_file(dict(original(folders["sd"])), file := tmp_path / "all.safetensors")
    source = Source(str(folder), single_file=str(file))
    require_model(source, "sd")
    dense = open_pipeline(Source(str(folders["sd"])))
    assert identity_of(open_pipeline(source)) == identity_of(dense)
    command = ["--model", str(folder), "--single-file", str(file), "--method", "magnitude"]
    main(["prune", *command, "--out", str(tmp_path / "half")])
    load_pruned(dense, tmp_path / "half")  # of the same weights in the folder's files
    plan(source, PruneSpec(method="magnitude"))


def test_another_file_is_another_pipeline(folders, tmp_path):
    """Also where the cache of hashes knows the first one."""
    folder, file = folders["sd"], tmp_path / "unet.safetensors"
    source = Source(str(folder), single_file=str(file))
    found = []
    for factor in (1, 2):
        save_file({key: factor * tensor for key, tensor in weights(folder / "unet").items()}, file)
        found.append(identity_of_source(source, open_pipeline(source)))
    assert found[0]["unet"] != found[1]["unet"] and found[0]["vae"] == found[1]["vae"]


def test_an_exported_denoiser_is_read_by_diffusers_and_by_us(family, folders, tmp_path, capsys):
    """Pruned and written as one file, which gives both the same weights."""
    name, part = family.__name__.rpartition(".")[2], family.TRAITS.denoiser
    model = ["--model", str(folders[name])]
    main(["prune", *model, "--method", "magnitude", "--out", str(tmp_path / "half")])
    file, command = tmp_path / "files" / "half.safetensors", ["export", *model, "--checkpoint", str(tmp_path / "half")]
    for _ in range(2):  # an earlier export is replaced
        main([*command, "--out", str(file)])
    call = capsys.readouterr().out.strip().splitlines()[-1].partition(": ")[2]
    theirs = eval(call, vars(diffusers))
    pruned = open_pipeline(Source(str(folders[name])))
    load_pruned(pruned, tmp_path / "half")
    ours = open_pipeline(Source(str(folders[name]), single_file=str(file)))
    wanted = getattr(pruned, part).state_dict()
    for found in (theirs.state_dict(), getattr(ours, part).state_dict()):
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["obsdiff"])["spec"]["method"] == "magnitude"
    with pytest.raises(SpecError, match="max_shard_size: '5GB' is not free with a single file"):
        dispatch("obsdiff.commands", "obsdiff", [*command, "--out", str(file), "--max-shard-size", "5GB"])


@pytest.mark.parametrize("there", ["weights", "text"])
def test_an_export_replaces_no_other_file(there, folders, tmp_path, saved):
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1)}, file) if there == "weights" else file.write_text("mine")
    before, pipe = file.read_bytes(), registry.load("obsdiff.models", "sd3").tiny()
    manifest = load_pruned(pipe, saved["random"])
    with pytest.raises(SpecError, match="is not an exported denoiser, and would be overwritten"):
        export_denoiser(pipe, file, manifest)
    assert file.read_bytes() == before
    with pytest.raises(SpecError, match="is a folder"):
        export_denoiser(pipe, tmp_path, manifest)
    with pytest.raises(CheckpointError, match="heads left"):
        export_denoiser(
            pipe,
            tmp_path / "b.safetensors",
            load_pruned(registry.load("obsdiff.models", "sd3").tiny(), saved["structured"]),
        )
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_model_file_of_a_sweep_names_it(folders, tmp_path, monkeypatch):
    """One that is not there is refused by its key; another content is another state of the jobs' model."""
    record = configs.read_record("emoji-sd3")
    record["source"] |= {
        "model": str(folders["sd3"]),
        "without": [],
        "single_file": str(tmp_path / "a.safetensors"),
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(record))
    monkeypatch.setattr(configs, "MODELS", tmp_path)
    with pytest.raises(SpecError, match=r"source.single_file: .* is not a file on this machine"):
        configs.read_model("mine")
    states = []
    for number in (1.0, 2.0):
        save_file({"a": torch.tensor([number])}, tmp_path / "a.safetensors")
        source = Source(**configs.read_model("mine")["source"])
        states.append(dag.state("model", [path for files in component_files(source).values() for path in files]))
    assert states[0] != states[1]


def quantised(tensors: Tensors) -> None:
    key = max(tensors, key=lambda name: tensors[name].numel())
    tensors[key] = tensors[key].to(torch.float8_e4m3fn)


def lacking(part: str) -> Callable[[Tensors], None]:
    def spoil(tensors: Tensors) -> None:
        del tensors[max(key for key in tensors if part in key)]

    return spoil


def of_another_width(tensors: Tensors) -> None:
    key = next(key for key in tensors if "to_q" in key)
    tensors[key] = tensors[key][:4].clone()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (quantised, "is quantised .*F8_E4M3"),
        (lacking("to_q"), "lacks tensors of what"),
        (lacking("decoder.up"), "lacks tensors of what"),
        (lacking("mlp.fc1"), "lacks tensors of what"),
        (of_another_width, "single_file of .* cannot be loaded"),
    ],
)
def test_a_file_that_is_not_of_this_model_is_refused(spoil: Callable[[Tensors], None], message, folders, tmp_path):
    tensors = dict(original(folders["sd"]))
    spoil(tensors)
    save_file(tensors, file := tmp_path / "all.safetensors")
    with pytest.raises(SpecError, match=message) as caught:
        open_pipeline(Source(str(folders["sd"]), single_file=str(file)))
    assert "\n" not in str(caught.value) and ";" in str(caught.value)


@pytest.mark.parametrize("opened", [open_pipeline, require_model, lambda source: plan(source, PruneSpec())])
def test_a_file_that_is_not_there_or_cut_is_refused_before_anything_loads(opened, folders, tmp_path):
    with pytest.raises(SpecError, match=r"single_file: .* is not a file on this machine"):
        opened(Source(str(folders["sd"]), single_file=str(tmp_path / "none.safetensors")))
    file = tmp_path / "cut.safetensors"
    file.write_bytes(next((folders["sd"] / "unet").glob("*.safetensors")).read_bytes()[:-4])
    with pytest.raises(SpecError, match=r"cut.safetensors has .* bytes"):
        opened(Source(str(folders["sd"]), single_file=str(file)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"single_file": "model.ckpt"}, "single_file: 'model.ckpt' is not a .safetensors file"),
        ({"single_file": "model.gguf"}, "single_file: 'model.gguf' is not a .safetensors file"),
        ({"single_file": "a.safetensors", "variant": "fp16"}, "variant: 'fp16' is not free with single_file"),
    ],
)
def test_other_formats_are_refused_at_once(options, message):
    with pytest.raises(SpecError, match=message):
        Source("somebody/model", **options)


def test_a_hub_id_wants_its_configurations(tmp_path):
    """Weights that the file replaces are not fetched."""
    save_file({"a": torch.zeros(1)}, file := tmp_path / "a.safetensors")
    with pytest.raises(SpecError, match=r"hf download nobody/nothing --exclude '\*.safetensors'"):
        open_pipeline(Source("nobody/nothing", single_file=str(file), local_files_only=False))
