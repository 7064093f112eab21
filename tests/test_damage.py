"""Checkpoints that were cut, edited, swapped or made by hand: each is refused by what is wrong, none loads."""

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import spec_of
from malformed import count
from safetensors.torch import load_file, save_file

from obsdiff import CheckpointError, load_pruned, prune, registry, save_pruned
from obsdiff.checkpoints.checkpoint import WEIGHTS, read_pruned
from obsdiff.checkpoints.manifest import MANIFEST
from obsdiff.storage.files import file_hash, seal

KINDS: dict[str, dict[str, Any]] = {
    "mask": {"bias": True, "method": "obs_diff", "packages": 1},
    "n_m": {"pattern": "2:4"},
    "structured": {"pattern": "structured"},
    "dense": {"method": "dense"},
}
GARBAGE = {
    "empty": b"",
    "not JSON": b"format: 2\n",
    "UTF-16": json.dumps({"format": 2}).encode("utf-16"),
    "binary": bytes(range(256)),
    "a list": b"[2]",
    "a number": b"2",
    "null": b"null",
    "NaN": b'{"format": NaN}',
    "an infinite number": b'{"format": 1e999}',
    "an endless integer": b"9" * 9999,
    "nested": b"[" * 100_000,
    "a lone surrogate": b'{"\\ud800": "\\ud800", "format": 2}',
    "no format": b"{}",
    "format true": b'{"format": true}',
    "format -1": b'{"format": -1}',
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind, all of one tiny model."""
    folder = tmp_path_factory.mktemp("whole")
    for name, more in KINDS.items():
        pipe = registry.load("obsdiff.models", "sd3").tiny()
        save_pruned(pipe, folder / name, prune(pipe, spec_of(**{"method": "magnitude"} | more)))
    return {name: folder / name for name in KINDS}


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def paths_of(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Where every scalar and every key of a record is."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from paths_of(part, (*at, key))


def edited(record: dict[str, Any], at: tuple, change: str, g: random.Random) -> str:
    """The record's JSON with the value at that place dropped, renamed, there twice, or another one."""
    record = copy.deepcopy(record)
    parent = record
    for key in at[:-1]:
        parent = parent[key]
    key, value = at[-1], parent[at[-1]]
    if change == "drop":
        del parent[key]
    elif change == "rename" and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif change == "twice" and isinstance(parent, dict):
        parent["\0twice"] = value
    else:
        others: list[Any] = [None, True, -1, 0, 7.5, float("nan"), "x", [], {}, [value], str(value)]
        others += [value + 1] if isinstance(value, int | float) else [f"{value}x"] if isinstance(value, str) else []
        parent[key] = g.choice([o for o in others if json.dumps(o) != json.dumps(value)])
    return json.dumps(record, indent=1).replace('"\\u0000twice"', json.dumps(key))


def variants(whole: dict[str, Path], g: random.Random) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(what was done, the files' new content) of many damaged checkpoints."""
    for kind, folder in whole.items():
        for name in (MANIFEST, WEIGHTS):
            data = (folder / name).read_bytes()
            for _ in range(12):
                i, bit = g.randrange(len(data)), 1 << g.randrange(8)
                yield f"{kind}: bit of {name} at {i}", {name: data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :]}
                yield f"{kind}: {name} cut at {i}", {name: data[:i]}
            yield f"{kind}: {name} longer", {name: data + b"x"}
        record = record_of(folder)
        top = [(key,) for key in record]
        every = sorted(paths_of(record), key=str)
        places = g.sample(every, min(60, len(every)))
        for change in ("drop", "rename", "twice"):
            for at in top:
                yield f"{kind}: {change} {at}", {MANIFEST: edited(record, at, change, g).encode()}
        for at in [*top, *places]:
            for change in ("drop", "other"):
                yield f"{kind}: {change} {at}", {MANIFEST: edited(record, at, change, g).encode()}
        for other in whole.values():
            if other != folder:
                for name in (MANIFEST, WEIGHTS):
                    yield f"{kind}: {name} of {other.name}", {name: (other / name).read_bytes()}
        for what, content in GARBAGE.items():
            for name in (MANIFEST, WEIGHTS):
                yield f"{kind}: {name} is {what}", {name: content}


@pytest.mark.malformed
def test_every_damaged_checkpoint_is_refused(whole, tmp_path):
    """Bits, lengths, keys, scalars, swapped files and garbage, some hundreds: CheckpointError and nothing else."""
    tried, silent = 0, []
    for what, files in variants(whole, random.Random(0)):
        source = whole[what.partition(":")[0]]
        content = {name: files.get(name, (source / name).read_bytes()) for name in (MANIFEST, WEIGHTS)}
        if all(data == (source / name).read_bytes() for name, data in content.items()):
            continue
        for name, data in content.items():
            (tmp_path / name).write_bytes(data)
        tried += 1
        try:
            read_pruned(tmp_path)
            silent.append(what)
        except CheckpointError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error), what
            count("checkpoints", "refused")
    assert not silent and tried > 500


def without(name: str):
    def edit(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        del record[name]

    return edit


def put(value: Any, *at: Any):
    def edit(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for key in at[:-1]:
            record = record[key]
        record[at[-1]] = value

    return edit


def dropped_layer(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    name = record["layers"].pop()["name"]
    record["packages"] = [[n for n in package if n != name] for package in record["packages"]]
    record["sparsity"] = sum(x["removed"] for x in record["layers"]) / sum(
        x["shape"][0] * x["shape"][1] for x in record["layers"]
    )


def other_tensors(change):
    """An edit of the first layer's tensors: by part, changed in place."""

    def edit(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        change(tensors, record["layers"][0]["name"])

    return edit


def renamed(tensors, name):
    tensors["nowhere.values"] = tensors.pop(f"{name}.values")


def shorter(part):
    def change(tensors, name):
        tensors[f"{name}.{part}"] = tensors[f"{name}.{part}"][:-1].clone()

    return other_tensors(change)


def of_another_dtype(tensors, name):
    for part in ("values", "weight"):
        if f"{name}.{part}" in tensors:
            tensors[f"{name}.{part}"] = tensors[f"{name}.{part}"].to(torch.int32)


def dense_weights(tensors, name):
    tensors[f"{name}.mask"] = torch.full_like(tensors[f"{name}.mask"], 255)
    tensors[f"{name}.values"] = torch.ones(8 * len(tensors[f"{name}.mask"]))


FORGED = {
    "future": ("mask", put(4, "format"), "written by a newer obsdiff .format 4, and this one reads 3.; upgrade"),
    "older": ("mask", without("format"), "written by an older obsdiff .format 1, and this one reads 3.; prune again"),
    "no layers": ("mask", put([], "layers"), "layers: 0 layers, and method 'obs_diff' at sparsity 0.5 prunes some"),
    "layers of a dense model": ("mask", put("dense", "spec", "method"), r"spec\.sparsity: 0.5 is not 0"),
    "another method": ("mask", put("nobody", "spec", "method"), "method: 'nobody' unknown"),
    "another sparsity": ("mask", put(0.3, "spec", "sparsity"), "lost .* which is not the sparsity of the spec"),
    "another total": ("mask", put(0.3, "sparsity"), "sparsity: 0.3 is not that of the layers"),
    "a layer dropped": ("mask", dropped_layer, "holds '.*' of no layer in manifest.json"),
    "another name": ("mask", put("nowhere", "layers", 0, "name"), "packages: not the layers that were pruned"),
    "more removed than there is": ("mask", put(10**9, "layers", 0, "removed"), "of them removed"),
    "a flag as a number": ("mask", put(1, "spec", "compensate"), r"spec\.compensate: 1 is not of type 'boolean'"),
    "a text as a number": ("mask", put("0", "layers", 0, "removed"), r"layers\[0\]\.removed: '0' is not of type"),
    "a negative time": ("mask", put(-1.0, "seconds", "total"), r"seconds\.total: -1.0 is less than the minimum"),
    "no versions": ("mask", put({}, "versions"), "versions: 'diffusers' is a required property"),
    "a key too many": ("mask", put(1, "more"), "'more' was unexpected"),
    "an old base": ("mask", put("0" * 64, "base"), "base: .* is not of type 'object'"),
    "kept too high": ("structured", put([7], "sites", 0, "kept"), r"keeps \[7\] of 2 groups"),
    "kept downwards": ("structured", put([1, 0], "sites", 0, "kept"), "must ascend from 0 to 1"),
    "none kept": ("structured", put([], "sites", 0, "kept"), r"keeps \[\] of 2 groups"),
    "all kept": ("structured", put([0, 1], "sites", 0, "kept"), "keeps 2 of 2 heads, and the spec asks for 1"),
    "no sites": ("structured", put([], "sites"), "sites: 0 of them, which pattern 'structured' cannot have"),
    "sites of another kind": ("structured", put("legs", "sites", 0, "kind"), "'legs' are not among what was pruned"),
    "another pattern": ("structured", put("heads", "spec", "pattern"), "'neurons' are not among what was pruned"),
    "a tensor renamed": ("mask", other_tensors(renamed), r"\.values is missing; prune again"),
    "a mask cut": ("mask", shorter("mask"), "its mask has .* bytes"),
    "values cut": ("mask", shorter("values"), "its mask keeps .* weights, and there are"),
    "codes cut": ("n_m", shorter("codes"), "its codes have .* bytes"),
    "values of codes cut": ("n_m", shorter("values"), "its codes keep .* weights, and there are"),
    "a row cut": ("structured", shorter("weight"), "its weight is .* weights should be left"),
    "a bias cut": ("mask", shorter("bias"), "its bias does not fit"),
    "another dtype": ("n_m", other_tensors(of_another_dtype), "its weight is not floating-point"),
    "the dense model": ("mask", other_tensors(dense_weights), "has .* weights, and .* should be left"),
}


@pytest.mark.parametrize(("kind", "edit", "message"), FORGED.values(), ids=FORGED)
def test_what_is_wrong_is_said_even_if_all_digests_are_right(whole, tmp_path, kind, edit, message):
    shutil.copytree(whole[kind], tmp_path / "c")
    record, tensors = record_of(tmp_path / "c"), load_file(tmp_path / "c" / WEIGHTS)
    edit(record, tensors)
    save_file(tensors, tmp_path / "c" / WEIGHTS)
    record["weights_sha256"] = file_hash(tmp_path / "c" / WEIGHTS)
    (tmp_path / "c" / MANIFEST).write_text(json.dumps(seal(record)))
    with pytest.raises(CheckpointError, match=message):
        read_pruned(tmp_path / "c")


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_tells_an_edit_that_nothing_else_tells(whole, tmp_path, kind):
    shutil.copytree(whole[kind], tmp_path / "c")
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    assert load_pruned(pipe, tmp_path / "c").as_dict() == record_of(tmp_path / "c")
    record = record_of(tmp_path / "c")
    record["seconds"]["total"] += 1
    (tmp_path / "c" / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="edited after it was written"):
        load_pruned(pipe, tmp_path / "c")


def test_layers_that_the_pipeline_does_not_have(whole, tmp_path):
    """A checkpoint made by hand, with the right base and the right digests."""
    for kind, part in (("mask", "layers"), ("structured", "sites"), ("n_m", "dtype")):
        shutil.copytree(whole[kind], tmp_path / kind)
        record, tensors = record_of(tmp_path / kind), load_file(tmp_path / kind / WEIGHTS)
        if part == "layers":
            old = record["layers"][0]["name"]
            text = json.dumps(record).replace(json.dumps(old), '"nowhere"')
            record = json.loads(text)
            tensors = {k.replace(f"{old}.", "nowhere."): v for k, v in tensors.items()}
        elif part == "dtype":
            tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
        else:
            record["sites"][0] |= {"groups": 4, "kept": [0, 1]}
        save_file(tensors, tmp_path / kind / WEIGHTS)
        record["weights_sha256"] = file_hash(tmp_path / kind / WEIGHTS)
        (tmp_path / kind / MANIFEST).write_text(json.dumps(seal(record)))
        with pytest.raises(CheckpointError, match=r"this pipeline has no (layer 'nowhere'|4 heads)|and should be"):
            load_pruned(registry.load("obsdiff.models", "sd3").tiny(), tmp_path / kind)


def test_a_dense_pipeline_is_not_saved_as_a_pruned_one(family, tmp_path):
    for pattern in ("unstructured", "structured"):
        report = prune(family.tiny(), spec_of("magnitude", pattern=pattern))
        with pytest.raises(CheckpointError, match="give save_pruned the pipeline that prune"):
            save_pruned(family.tiny(), tmp_path / pattern, report)
        assert not (tmp_path / pattern).exists()
