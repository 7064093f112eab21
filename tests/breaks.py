"""What people do to model folders: one break of every kind at every kind of file."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Break = Callable[[Path], None]


def removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(255)) * 4)


def dangling(path: Path) -> None:
    removed(path)
    path.symlink_to("/nowhere/at/all")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def utf16(path: Path) -> None:
    path.write_text(path.read_text(), encoding="utf-16")


def marked(path: Path) -> None:
    path.write_text(path.read_text(), encoding="utf-8-sig")


def a_list(path: Path) -> None:
    path.write_text("[1, 2]")


def a_number(path: Path) -> None:
    path.write_text("3")


def with_nan(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"x": float("nan")}))


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


ANY = (removed, emptied, cut, garbage, dangling, a_folder)
JSON = (*ANY, utf16, marked, a_list, a_number, with_nan)
WEIGHTS = (*ANY, lfs_pointer)


def edited(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def tensors_of(path: Path, change: Callable[[dict], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def without_one(path: Path) -> None:
    tensors_of(path, lambda tensors: tensors.pop(sorted(tensors)[0]))


def with_another(path: Path) -> None:
    tensors_of(path, lambda tensors: tensors.update(extra=torch.zeros(3)))


def of_another_shape(path: Path) -> None:
    def change(tensors: dict) -> None:
        name = sorted(tensors)[0]
        tensors[name] = torch.zeros(1, *tensors[name].shape)

    tensors_of(path, change)


def sharded(path: Path, lost: str | None = None, index: object = None) -> None:
    """In two files and an index; of those one may be lost, or the index be another."""
    tensors = load_file(path)
    names, files = sorted(tensors), [f"{path.stem}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    halves = dict(zip(files, (names[::2], names[1::2]), strict=True))
    for file, own in halves.items():
        save_file({name: tensors[name] for name in own}, path.parent / file, {"format": "pt"})
    record = {"metadata": {}, "weight_map": {name: file for file, own in halves.items() for name in own}}
    path.with_name(path.name + ".index.json").write_text(json.dumps(record if index is None else index))
    path.unlink()
    if lost:
        (path.parent / files[1]).unlink()


def breaks(folder: Path) -> dict[str, tuple[str, Break]]:
    """Name → the component that the error must name, and what breaks the folder: every kind at every kind of file."""
    index = json.loads((folder / "model_index.json").read_text())
    pairs = {tuple(entry): name for name, entry in reversed(index.items()) if isinstance(entry, list) and entry[0]}
    parts = list(pairs.values())  # one component per class
    found: dict[str, tuple[str, Break]] = {}

    def add(part: str, file: str, kind: Break, about: str = "") -> None:
        what = getattr(kind, "__name__", about)
        found[f"{part}/{file} {what}"] = (part, lambda d: kind(d / part / file))

    for kind in JSON:
        add("", "model_index.json", kind)
    for part in parts:
        add(part, "", removed)
        for file in sorted((folder / part).iterdir()):
            add_kinds = JSON if file.suffix == ".json" else WEIGHTS if file.suffix == ".safetensors" else ANY
            for kind in add_kinds:
                add(part, file.name, kind)
            if file.suffix == ".safetensors":
                for kind in (without_one, with_another, of_another_shape):
                    add(part, file.name, kind)
                add(part, file.name, partial(sharded, lost="one"), "shard lost")
                others: tuple[Any, ...] = ({}, [], {"weight_map": 3}, {"weight_map": {"a": 1}})
                for other in others:
                    add(part, file.name, partial(sharded, index=other), f"index {other}")
        if (folder / part / "config.json").is_file():
            for values in (
                {"_class_name": "AutoencoderTiny", "model_type": "llama"},
                {"num_layers": 7, "num_hidden_layers": 7, "layers_per_block": 3},
                {"attention_head_dim": "x", "hidden_size": "x", "block_out_channels": []},
                {"num_attention_heads": 0, "norm_num_groups": 0},
            ):
                add(part, "config.json", partial(edited, **values), f"edited {values}")
        entries: tuple[Any, ...] = (
            [],
            ["diffusers"],
            "x",
            ["diffusers", 3],
            ["os", "path"],
            ["diffusers", "NoSuchClass"],
            ["x", "y"],
        )
        for entry in entries:
            add("", "model_index.json", partial(edited, **dict([(part, entry)])), f"{part}: {entry}")
    for name in ("Nonsense", "StableDiffusionImg2ImgPipeline", 3, ["a", "b"], None, "UNet2DModel"):
        add("", "model_index.json", partial(edited, _class_name=name), f"class {name}")
    return found
