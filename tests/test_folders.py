"""Where results may be written, and exports: what is not ours stays, and what is half written does not look whole."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import spec_of
from diffusers import DiffusionPipeline
from malformed import count

from obsdiff import SpecError, export_pruned, models, prune, registry, save_pruned
from obsdiff.__main__ import main
from obsdiff.checkpoints.exporting import opened_by
from obsdiff.storage.folders import CHECKPOINT, EXPORT, claimed, require_free


def tiny() -> Any:
    return registry.load("obsdiff.models", "sd3").tiny()


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder, links not followed."""
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a model, links to it, folders and files of others and a checkpoint; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    pipe = tiny()
    pipe.save_pretrained("dense")
    save_pruned(pipe, "half", prune(pipe, spec_of("magnitude")))
    for name in ("empty", "photos", "site"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos/me.png").write_bytes(b"me")
    (tmp_path / "site/manifest.json").write_text('{"name": "a web page", "icons": []}')
    (tmp_path / "site/obsdiff.json").write_text("[]")
    (tmp_path / "link").symlink_to("dense")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def test_a_link_to_a_folder_that_is_not_there_makes_it(place):
    (place / "later").symlink_to("made/now")
    pipe = tiny()
    save_pruned(pipe, "later", prune(pipe, spec_of("magnitude")))
    assert (place / "made/now/manifest.json").is_file()


REFUSED = {
    "dense": "is a diffusers model, which would be overwritten; give another folder",
    "empty/../dense/": "is a diffusers model, which would be overwritten",
    "link": "is a diffusers model, which would be overwritten",
    "dense/vae": "lies in the diffusers model",
    "link/new/one": "lies in the diffusers model",
    "photos": r"is not empty \(me.png\) and not (a pruned checkpoint|an exported pipeline); give another folder",
    "site": r"is not empty \(manifest.json, obsdiff.json\) and not (a pruned checkpoint|an exported pipeline)",
    ".": r"is not empty \(dense, empty, half …\) and not",
    "photos/me.png": "is a file; give a folder",
    "photos/me.png/new": "is a file; give a folder",
    "loop": "is a file; give a folder|cannot be used as a folder",
    "a\0b": "cannot be used as a folder",
    "x" * 300: "cannot be used as a folder",
}


@pytest.mark.malformed
@pytest.mark.parametrize("out", REFUSED, ids=lambda name: repr(name[:20]))
def test_a_folder_that_is_not_ours_is_refused_before_any_weights(place, out, monkeypatch, capsys):
    before, pipe = everything(place), tiny()
    report = prune(pipe, spec_of("magnitude"))
    for write in (lambda: save_pruned(pipe, out, report), lambda: export_pruned(pipe, out, report)):
        with pytest.raises(SpecError, match=f"out: .*({REFUSED[out]})"):
            write()
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    for arguments in (["prune", "--method", "magnitude"], ["export", "--checkpoint", "half"]):
        capsys.readouterr()
        assert main([*arguments, "--model", "dense", "--out", out]) == 2
        assert capsys.readouterr().err.startswith("error: out: ")
        count("folders to write to", "refused")
    assert everything(place) == before


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode, **_: Path(path) != tmp_path)
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(SpecError, match=f"out: {tmp_path} cannot be written to"):
            require_free(folder, CHECKPOINT)


def test_results_of_ours_are_written_over_and_no_others(place):
    """A checkpoint over a checkpoint, an export over an export; not one over the other."""
    pipe = tiny()
    report = prune(pipe, spec_of("magnitude", sparsity=0.7))
    for _ in range(2):
        save_pruned(pipe, "half", report)
        export_pruned(pipe, "plain", report)
    with pytest.raises(SpecError, match="is a diffusers model"):
        save_pruned(pipe, "plain", report)
    with pytest.raises(SpecError, match="not an exported pipeline"):
        export_pruned(pipe, "half", report)
    for old in ("half", "plain"):  # of versions that had no lock files
        for lock in Path(old).glob(".*.lock"):
            lock.unlink()
    save_pruned(pipe, "half", report)
    export_pruned(pipe, "plain", report)


def test_a_folder_in_use_is_refused_and_one_where_nothing_was_written_goes(tmp_path):
    with claimed(tmp_path / "out", CHECKPOINT):
        with pytest.raises(SpecError, match="out is in use by another run; wait for it, or give another folder"):
            save_pruned(None, tmp_path / "out", None)
        (tmp_path / "out/file").touch()
    assert sorted(os.listdir(tmp_path / "out")) == [CHECKPOINT.lock, "file"]
    with pytest.raises(KeyError), claimed(tmp_path / "other", EXPORT):
        raise KeyError
    assert not (tmp_path / "other").exists()


def test_modes_follow_the_umask(tmp_path):
    pipe = tiny()
    report = prune(pipe, spec_of("obs_diff"), tmp_path / "out" / "progress")
    before = os.umask(0o027)
    try:
        for folder in ("first", "second"):  # the folder is made, then written over
            save_pruned(pipe, tmp_path / "half", report)
            export_pruned(pipe, tmp_path / "plain", report)
            prune(tiny(), spec_of("obs_diff"), tmp_path / folder / "progress")
    finally:
        os.umask(before)
    made = [tmp_path / name for name in ("half", "plain", "first", "second")]
    found = [*made, *(path for folder in made for path in folder.rglob("*"))]
    assert len(found) > 30 and {p.stat().st_mode & 0o777 for p in found if p.is_file()} == {0o640}
    assert {p.stat().st_mode & 0o777 for p in found if p.is_dir()} == {0o750}


def test_an_export_says_how_it_opens_and_opens_so(family, tmp_path, capsys):
    """Also what a bare from_pretrained does not open: diffusers wants to be told what is left out."""
    family.tiny().save_pretrained(tmp_path / "dense")
    source = ["--model", str(tmp_path / "dense")]
    assert main(["prune", *source, "--method", "magnitude", "--out", str(tmp_path / "half")]) == 0
    capsys.readouterr()
    export = ["export", *source, "--checkpoint", str(tmp_path / "half"), "--out", str(tmp_path / "plain")]
    assert main([*export, "--max-shard-size", "20KB"]) == 0
    told = capsys.readouterr().out.strip()
    record = json.loads((tmp_path / "plain/obsdiff.json").read_text())
    assert told == f"{tmp_path / 'plain'}: {record['opened_by']}"
    again = eval(record["opened_by"], {"DiffusionPipeline": DiffusionPipeline})
    manifest = json.loads((tmp_path / "half/manifest.json").read_text())
    assert {**manifest, "opened_by": record["opened_by"]} == record
    for layer in manifest["layers"]:
        assert int((models.linear(models.denoiser_of(again), layer["name"]).weight == 0).sum()) == layer["removed"]
    assert len([*(tmp_path / "plain" / family.TRAITS.denoiser).glob("*-of-*.safetensors")]) > 1
    assert main([*export, "--max-shard-size", "large"]) == 2
    assert "max_shard_size: 'large' is not a number of bytes, or a text such as 5GB" in capsys.readouterr().err


def test_what_is_left_out_is_named_where_diffusers_wants_it(tmp_path):
    pipe = tiny()
    expected = f"DiffusionPipeline.from_pretrained('{tmp_path}', text_encoder_3=None, tokenizer_3=None)"
    assert opened_by(pipe, tmp_path) == expected
    unet = registry.load("obsdiff.models", "sd").tiny()
    assert opened_by(unet, tmp_path) == f"DiffusionPipeline.from_pretrained('{tmp_path}')"


def test_an_export_that_was_cut_short_does_not_look_whole(tmp_path, monkeypatch):
    """Whenever it is killed, there is the earlier one, no model_index.json, or the new one; then it can be redone."""
    one, other = tiny(), tiny()
    first, second = (prune(p, spec_of("magnitude", sparsity=s)) for p, s in ((one, 0.3), (other, 0.7)))
    export_pruned(one, tmp_path / "one", first)
    rename, seen = Path.replace, set()
    for moment in range(100):
        plain, left = tmp_path / str(moment), [moment]
        shutil.copytree(tmp_path / "one", plain)

        def dying(self: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            try:
                export_pruned(other, plain, second)
                break
            except KeyboardInterrupt:
                pass
        seen.add((plain / "model_index.json").exists())
        shutil.copytree(tmp_path / "one" / "vae", plain / ".export-killed.tmp")
        if (plain / "model_index.json").exists():
            assert opens_as(plain, one)
        export_pruned(other, plain, second)
        assert opens_as(plain, other) and not list(plain.glob(".*.tmp"))
    assert seen == {True, False} and opens_as(plain, other)


def opens_as(folder: Path, pipe: Any) -> bool:
    again = DiffusionPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    left, right = (models.denoiser_of(p).state_dict() for p in (pipe, again))
    return all(torch.equal(left[key], right[key]) for key in left)
