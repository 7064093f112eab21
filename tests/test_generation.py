"""Images drawn, kept, and held to their manifest: what is damaged is drawn again, what shows nothing is counted."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SAMPLING
from hypothesis import given
from hypothesis import strategies as st
from malformed import count
from PIL import Image
from synthetic import manifest_of

from eval.images.generate import DONE, alone, generate
from eval.images.manifest import ImagesManifest, drawn, read_manifest
from eval.images.saving import Saver
from eval.loading import drawn_images
from obsdiff import registry
from obsdiff.captions.prompts import Prompt, file_name
from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile

CHECKPOINT = manifest_of("random")
PROMPTS = [Prompt(i, f"caption {i}") for i in ("0", "../../x", "A", "a", "val/0001")]
BATCHES = 3


class Pipe:
    """A pipeline of a family that draws what it is told to, and counts its calls."""

    def __init__(self, draw=None, flags=None) -> None:
        self.inner = registry.load("obsdiff.models", "sd3").tiny()
        self.draw, self.flags, self.calls = draw, flags, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, **arguments):
        self.calls += 1
        found = self.inner(**arguments)
        if self.draw is not None:
            found.images = self.draw(found.images)
        return SimpleNamespace(
            images=found.images, nsfw_content_detected=self.flags and self.flags[: len(found.images)]
        )


@pytest.fixture
def pipe(monkeypatch):
    """Whatever class the pipeline has, it is of that family."""
    monkeypatch.setattr("obsdiff.models.family_of", lambda _: registry.load("obsdiff.models", "sd3"))
    return Pipe()


def draw(pipe, folder: Path, **more) -> ImagesManifest:
    generate(
        pipe,
        more.pop("checkpoint", CHECKPOINT),
        PROMPTS,
        replace(SAMPLING, steps=1),
        more.pop("seed", 0),
        folder,
        **more,
    )
    return read_manifest(folder / "manifest.json")


def test_bytes_are_those_of_the_pipelines_own_images(family, tmp_path):
    """As it saves them when asked for images, under names that are no paths."""
    from obsdiff.sampling import noise

    own, sampling = family.tiny(), replace(SAMPLING, steps=1)
    generate(own, CHECKPOINT, PROMPTS[:2], sampling, 0, tmp_path / "images")
    embeds = family.encode(own, [p.caption for p in PROMPTS[:2]], sampling)
    expected = own(**embeds, **sampling.arguments(), generator=noise([p.id for p in PROMPTS[:2]], 0)).images
    for prompt, picture in zip(PROMPTS[:2], expected, strict=True):
        picture.save(tmp_path / "x.png", format="PNG")
        assert (tmp_path / "images" / f"{file_name(prompt.id)}.png").read_bytes() == (tmp_path / "x.png").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"images", "x.png"}


def test_damaged_images_and_records_are_drawn_again_a_whole_batch_at_a_time(pipe, tmp_path, capsys):
    first = draw(pipe, tmp_path)
    assert pipe.calls == BATCHES and first.faults() == {
        "count": 5,
        "black": 0,
        "flat": 0,
        "non_finite": 0,
        "flagged": 0,
    }
    picture, record = tmp_path / "0.png", next((tmp_path / DONE).iterdir())
    whole = picture.read_bytes()
    for damage in (
        lambda: picture.write_bytes(b""),
        lambda: picture.write_bytes(whole[: len(whole) // 2]),
        lambda: picture.write_bytes((tmp_path / "a.png").read_bytes()),
        lambda: picture.unlink(),
        lambda: record.write_text(record.read_text()[:20]),
        lambda: record.write_text('{"format": 0}'),
    ):
        damage()
        pipe.calls = 0
        capsys.readouterr()
        assert draw(pipe, tmp_path) == first and pipe.calls == 1
        assert capsys.readouterr().err.count("is damaged") == 1
    record.unlink()
    (tmp_path / "identity.json").write_text("")
    pipe.calls = 0
    assert draw(pipe, tmp_path) == first and pipe.calls == BATCHES
    assert not list(tmp_path.rglob("*.tmp"))


def test_measure_takes_only_what_was_drawn(pipe, tmp_path):
    draw(pipe, tmp_path)
    path = tmp_path / "manifest.json"
    whole, picture = path.read_text(), (tmp_path / "0.png").read_bytes()
    assert drawn(tmp_path, PROMPTS).paths(tmp_path, PROMPTS)[0] == tmp_path / "0.png"
    (tmp_path / "0.png").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(SpecError, match=r"0\.png is not the one that was drawn \(its hash .*; remove .* and rerun"):
        drawn(tmp_path, PROMPTS)
    (tmp_path / "0.png").unlink()
    with pytest.raises(SpecError, match=r"0\.png is not the one that was drawn \(it cannot be read: No such file"):
        drawn(tmp_path, PROMPTS)
    (tmp_path / "0.png").write_bytes(picture)
    with pytest.raises(SpecError, match=r"has no image of 'z'; remove"):
        drawn(tmp_path, [*PROMPTS, Prompt("z", "a cat")])
    with pytest.raises(SpecError, match=r"is of other prompts: it has an image of '0'; remove"):
        drawn(tmp_path, PROMPTS[1:])
    (tmp_path / "mine.png").write_bytes(picture)
    with pytest.raises(SpecError, match=r"mine\.png was not drawn by this run; take it out of there"):
        drawn(tmp_path, PROMPTS)
    (tmp_path / "mine.png").unlink()
    record = json.loads(whole)
    for edit in (
        {"format": 2},
        {"identity": None},
        {"pictures": []},
        {"pictures": {"0": {"file": "../0.png", "sha256": "0" * 64}}},
        {"pictures": {"0": {"file": "0.png", "sha256": "short"}}},
        {"pictures": {"0": {"file": "0.png"}}},
        {"pictures": {"0": record["pictures"]["0"] | {"faults": ["blue"]}}},
    ):
        path.write_text(json.dumps(record | edit))
        with pytest.raises(SpecError, match=r"not a manifest of images, format 1 .*remove .* and rerun"):
            drawn(tmp_path, PROMPTS)
    for text in ("", whole[:50], "[]", '"x"'):
        path.write_text(text)
        with pytest.raises(DamagedFile, match=r"manifest\.json"):
            read_manifest(path)


WHOLE = json.dumps({"format": 1, "identity": "x", "pictures": {"0": {"file": "0.png", "sha256": "0" * 64}}})


@pytest.mark.malformed
@given(st.integers(0, len(WHOLE) - 1), st.sampled_from(["cut", "flip"]), st.integers(0, 7))
def test_a_damaged_manifest_is_named_or_has_its_form(tmp_path_factory, place, how, bit):
    path, data = tmp_path_factory.mktemp("manifest") / "manifest.json", WHOLE.encode()
    path.write_bytes(data[:place] + (bytes([data[place] ^ 1 << bit]) + data[place + 1 :] if how == "flip" else b""))
    try:
        found = read_manifest(path)
        assert len(found.pictures) <= 1 and all(len(e["sha256"]) == 64 for e in found.pictures.values())
    except DamagedFile as error:
        assert str(path) in str(error)
    with pytest.raises(SpecError, match=r"manifest\.json|0\.png"):
        drawn(path.parent, [Prompt("0", "a cat")])  # there is no image
    count("manifests of images", "refused")


def test_images_that_show_nothing_are_counted(pipe, tmp_path):
    def damaged(images: np.ndarray) -> np.ndarray:
        images = images.copy()
        images[0, 0, 0, 0] = np.nan
        if len(images) > 1:
            images[1] = 0.5
        return images

    made = draw(Pipe(damaged, [False, True]), tmp_path)
    assert made.faults() == {"count": 5, "black": 0, "flat": 2, "non_finite": 3, "flagged": 2}
    assert made.pictures["0"]["faults"] == ["non_finite"] and made.pictures["../../x"]["faults"] == ["flat", "flagged"]


@pytest.mark.parametrize(("colour", "flagged"), [(0.0, True), (np.nan, False)])
def test_a_dense_model_that_draws_nothing_is_an_error(pipe, tmp_path, colour, flagged):
    nothing = Pipe(lambda images: np.full_like(images, colour), [flagged] * 2)
    count = 5 if flagged else 0
    message = rf"all 5 of the dense model in .* \({count} flagged by .*dtype: bfloat16 or .*without: \[safety_checker\]"
    with pytest.raises(SpecError, match=message):
        draw(nothing, tmp_path, checkpoint=manifest_of("dense"))
    assert not (tmp_path / "manifest.json").exists()
    assert draw(nothing, tmp_path, checkpoint=CHECKPOINT).faults()["black"] == 5
    with pytest.raises(SpecError, match=message):  # shards are not looked at one by one, but as the dense cell
        drawn_images(tmp_path, tmp_path, PROMPTS)


def test_the_next_batch_is_sampled_while_the_last_is_saved_and_errors_come_out(pipe, tmp_path, monkeypatch):
    opened, sampling = threading.Event(), threading.Event()

    def slow(*values):
        assert sampling.wait(30)
        opened.set()

    with Saver() as saver:
        saver.give(slow)
        sampling.set()  # reached although the first work has not ended
        saver.give(slow)
    assert opened.is_set()
    full = OSError(28, "No space left on device")

    def fail(*values):
        raise full

    with pytest.raises(OSError, match="No space left"), Saver() as saver:
        saver.give(fail)
    monkeypatch.setattr("eval.images.generate.save_batch", fail)
    with pytest.raises(OSError, match="No space left"):
        draw(pipe, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_a_second_job_waits_for_the_first(tmp_path):
    code = (
        "import sys; from pathlib import Path; from eval.images.generate import alone\n"
        f"with alone(Path({str(tmp_path / 'x.lock')!r}), Path('images')): print('in', flush=True)"
    )
    with alone(tmp_path / "x.lock", tmp_path):
        other = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        assert other.stderr.readline() == "images: another job draws these images; waiting for it to end\n"
    assert other.communicate(timeout=60)[0] == "in\n" and other.returncode == 0


def test_file_names_of_ids_that_are_paths_stay_within(pipe, tmp_path):
    made = draw(pipe, tmp_path / "deep" / "images")
    names = {entry["file"] for entry in made.pictures.values()}
    assert names == {f"{p.file}.png" for p in PROMPTS} == {p.name for p in (tmp_path / "deep/images").glob("*.png")}
    assert len({name.casefold() for name in names}) == len(PROMPTS) and not list(tmp_path.glob("*.png"))
    with Image.open(tmp_path / "deep/images/0.png") as picture:
        assert picture.size == (32, 32)
