"""An edit of a source, config, model or data file reruns what depends on it and nothing else: read from dry runs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from project import MODEL

from eval.sweep import dag
from obsdiff import registry
from obsdiff.storage.files import file_hash, write_json

STAGES = ("prune", "generate", "profile", "measure")
ENDS = dict.fromkeys(("summarise", "report", "track", "all"), 1)
ALONE = {"calibrate": 1, "latency": 1}
"""what cells share: the calibration of the one that has any, and the dense model's timings"""
ALL = dict.fromkeys(STAGES, 3) | ENDS
MEASURE = {"measure": 3} | ENDS


@contextmanager
def edited(path: Path, content: bytes | None = None) -> Iterator[None]:
    """A file with another content, of the same size where possible, and an older time: only its content tells."""
    before, times = path.read_bytes(), path.stat()
    try:
        path.write_bytes(before + b"\n# edited\n" if content is None else content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    return bytes(data)


def test_a_touched_or_moved_clock_reruns_nothing(project):
    for file in ("obsdiff/solver/obs.py", "eval/commands/generate.py", f"{MODEL['source']['model']}/model_index.json"):
        os.utime(project.folder / file)
    assert project.planned() == {}


def test_added_sparsity_runs_only_its_cells(project):
    one_a_method = dict.fromkeys(STAGES, 2)
    assert project.planned(sparsity=[0.5, 0.7]) == one_a_method | ENDS


@pytest.mark.parametrize(
    ("file", "jobs"),
    [
        ("obsdiff/methods/magnitude.py", dict.fromkeys(STAGES, 1) | ENDS),
        ("obsdiff/patterns/n_m.py", {}),
        ("obsdiff/checkpoints/packing.py", ALL | {"latency": 1}),
        ("obsdiff/solver/obs.py", ALL),
        ("obsdiff/solver/factors.py", ALL),
        ("obsdiff/solver/statistics.py", ALL | {"calibrate": 1}),
        ("obsdiff/weightings/log_decrease.py", dict.fromkeys(STAGES, 1) | ENDS | {"calibrate": 1}),
        ("eval/profile/latency.py", {"latency": 1, "measure": 1} | ENDS),
        ("eval/report/tables.py", ENDS),
        ("eval/figures/drift.py", ENDS),
        ("eval/report/report.html.jinja", dict.fromkeys(("report", "track", "all"), 1)),
        ("eval/networks/image_reward_worker.py", MEASURE),
    ],
)
def test_edited_source_reruns_only_what_depends_on_it(project, file, jobs):
    with edited(project.folder / file):
        assert project.planned() == jobs


@pytest.mark.parametrize(
    ("file", "jobs"),
    [
        (f"{MODEL['source']['model']}/tokenizer/tokenizer.json", ALL | ALONE),
        (f"{MODEL['source']['model']}/scheduler/scheduler_config.json", ALL | ALONE),
        (f"{MODEL['source']['model']}/vae/diffusion_pytorch_model.safetensors", ALL | ALONE),
        (f"{MODEL['evaluation']['evaluator']}/tokenizer.json", MEASURE),
        (f"{MODEL['evaluation']['evaluator']}/open_clip_model.safetensors", MEASURE),
    ],
)
def test_edited_model_or_evaluator_reruns_what_opens_it(project, file, jobs):
    path = project.folder / file
    json = path.suffix == ".json"
    with edited(path, path.read_bytes() + b" " if json else flipped(path)):
        assert project.planned() == jobs


def test_edited_data_and_images(project):
    """In place, with the old time: images, prompts; what is beside the model's components matters to nobody."""
    picture = next((project.folder / MODEL["evaluation"]["reference"]).glob("*.png"))
    with edited(picture, flipped(picture)):
        assert project.planned() == MEASURE
    prompts = project.folder / MODEL["calibration"]["prompts"]
    with edited(prompts, prompts.read_bytes() + b"zz,a new caption\n"):
        found = project.planned()
        assert (found["prompts"], found["calibrate"], found["prune"]) == (1, 1, 1)
    cells = project.folder / project.results() / "cells"
    drawn = next((cells / "tiny/obs_diff").rglob("*.png"))
    with edited(drawn, flipped(drawn)):
        assert project.planned() == {"measure": 1} | ENDS
    readme = project.folder / MODEL["source"]["model"] / "README.md"
    readme.write_text("words")
    assert project.planned() == {}
    readme.unlink()


def test_edited_config_reruns_the_cells_that_use_the_value(project):
    """Damping is of compensating methods; a value that is the default's changes nothing, nor does a model's comment."""
    try:
        project.pruning = {"damping": 0.02}
        assert project.planned() == dict.fromkeys(STAGES, 1) | ENDS
        project.pruning = {"damping": 0.01, "alpha_min": 0.8}
        assert project.planned() == {}
    finally:
        project.pruning = {}
    model = project.folder / "config/models/tiny.yaml"
    before = model.read_text()
    try:
        changed = MODEL | {"evaluation": MODEL["evaluation"] | {"device": "cpu"}}
        model.write_text("# a comment\n" + yaml.safe_dump(changed))
        assert project.planned() == MEASURE
        model.write_text("# a comment\n" + before)
        assert project.planned() == {}
    finally:
        model.write_text(before)


JOBS = {"prompts", "generate", "merge", "profile", "latency", "measure", "tiny"}


@pytest.mark.parametrize("job", sorted(JOBS))
def test_a_job_depends_on_its_command_and_not_on_others(job, tmp_path, monkeypatch):
    """An edit of one command's file changes the state of its job alone; an edit of what all use changes all."""
    monkeypatch.chdir(tmp_path)
    for package in ("eval", "obsdiff"):
        shutil.copytree(registry.ROOT / package, tmp_path / package)

    def states() -> dict[str, object]:
        for cached in (dag.code, registry.imports_of, registry.sources):
            cached.cache_clear()
        return {name: dag.code(f"eval.commands.{name}", "eval.__main__") for name in JOBS}

    before, path = states(), tmp_path / f"eval/commands/{job}.py"
    text = path.read_text()
    path.write_text(text + "EDITED = 1\n")
    assert {name for name, state in states().items() if state != before[name]} == {job}
    path.write_text(text)
    main = tmp_path / "eval/__main__.py"
    main.write_text(main.read_text().replace("return 2", "return 3", 1))
    assert all(state != before[name] for name, state in states().items())
    dag.code.cache_clear(), registry.imports_of.cache_clear(), registry.sources.cache_clear()


def test_versions_of_libraries_are_part_of_a_jobs_code(monkeypatch):
    monkeypatch.chdir(registry.ROOT)
    dag.code.cache_clear()
    before = dag.code("eval.commands.generate", "obsdiff.pipelines.loading")
    known = dag.version
    monkeypatch.setattr(dag, "version", lambda name: "9.9" if name == "tokenizers" else known(name))
    dag.code.cache_clear()
    after = dag.code("eval.commands.generate", "obsdiff.pipelines.loading")
    assert after[0] == before[0] and after[1] != before[1] and "tokenizers 9.9" in after[1] and "torch " in after[1]
    dag.code.cache_clear()


def test_a_images_folder_is_as_drawn_until_one_is_changed(tmp_path):
    """Swapped, overwritten, lost or added images are seen, whatever their times; a copied folder is as drawn."""
    folder = tmp_path / "images"
    drawn = dag.images(folder)
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_bytes(name.encode() * 9)
    files = {n: {"file": f"{n}.png", "sha256": file_hash(folder / f"{n}.png")} for n in "abc"}
    write_json(folder / "manifest.json", {"pictures": files})
    assert dag.images(folder) == drawn
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert dag.images(copy) == drawn
    with edited(folder / "a.png", b"b" * 9):
        assert dag.images(folder) != drawn
    assert dag.images(folder) == drawn
    (folder / "a.png").rename(folder / "x.tmp")
    assert dag.images(folder) != drawn
    (folder / "b.png").rename(folder / "a.png")
    (folder / "x.tmp").rename(folder / "b.png")
    assert dag.images(folder) != drawn


def test_hashes_of_many_files_are_read_once_and_when_one_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("OBSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dag, "SETTLED_SECONDS", -1)
    files = [tmp_path / f"{i}.png" for i in range(dag.MANY)]
    for file in files:
        file.write_bytes(file.name.encode())
    link = tmp_path / "link.png"
    link.symlink_to(files[0])
    first = dag.state("x", [*files, link])
    monkeypatch.setattr(dag, "known_hash", lambda path: pytest.fail("read again"))
    assert dag.state("x", [*files, link]) == first
    monkeypatch.undo()
    monkeypatch.setenv("OBSDIFF_CACHE", str(tmp_path / "cache"))
    with edited(files[0], b"9.png"):
        assert dag.state("x", [*files, link]) != first
    files[3].unlink()
    assert dag.state("x", [*files, link]) != first
