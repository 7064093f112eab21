"""Prompt files of every kind, and the choice of some of their prompts."""

import json
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from eval.__main__ import main
from eval.sweep.config import read_model
from obsdiff.captions.prompts import Prompt, choose_prompts, identity, prompts_hash, read_prompts, write_prompts
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
COCO = {
    "images": [{"id": 42}, {"id": 7}],
    "annotations": [
        {"image_id": 42, "id": 9, "caption": "A bus.\n"},
        {"image_id": 7, "id": 3, "caption": "A dog"},
        {"image_id": 42, "id": 5, "caption": " A red bus. "},
    ],
}


def gcc(folder: Path, captions: list[str]) -> Path:
    path = folder / "Train_GCC-training.tsv"
    path.write_text("".join(f"{caption}\thttp://example.org/{i}.jpg\n" for i, caption in enumerate(captions)))
    return path


def test_conceptual_captions_are_taken_once_and_stripped(tmp_path):
    found = read_prompts(gcc(tmp_path, ["a cat ", "a dog", "", "a cat"]))
    assert found == [Prompt(identity("a cat"), "a cat"), Prompt(identity("a dog"), "a dog")]


def test_coco_has_one_caption_an_image(tmp_path):
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps(COCO))
    assert read_prompts(path) == [Prompt("7", "A dog"), Prompt("42", "A red bus.")]
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(SpecError, match="MS-COCO captions have"):
        read_prompts(path)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.txt"])
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path, name):
    text = "caption\na cat\na dog\n" if name == "p.csv" else "a cat\na dog\n"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert [p.caption for p in read_prompts(tmp_path / name)] == ["a cat", "a dog"]
    assert [p.id for p in read_prompts(tmp_path / name)] == [identity("a cat"), identity("a dog")]


def test_choice_by_hash_depends_on_neither_order_nor_number(tmp_path):
    captions = [f"caption {i}" for i in range(500)]
    many = choose_prompts(gcc(tmp_path, captions), 100)
    Random(0).shuffle(captions)
    few = choose_prompts(gcc(tmp_path, captions), 20)
    assert few == many[:20] and many != read_prompts(gcc(tmp_path, captions))[:100]
    hashes = [sha256(p.id.encode()).hexdigest() for p in many]
    assert hashes == sorted(hashes) and prompts_hash(few) != prompts_hash(few[::-1])
    assert choose_prompts(gcc(tmp_path, captions), 3, "first") == read_prompts(gcc(tmp_path, captions))[:3]


def test_csv_is_chosen_from_in_order(tmp_path):
    write_prompts(tmp_path / "p.csv", [Prompt(str(i), f"é {i}") for i in range(9)])
    assert [p.id for p in choose_prompts(tmp_path / "p.csv", 3)] == ["0", "1", "2"]
    assert {p.id for p in choose_prompts(tmp_path / "p.csv", 9, "hash")} == set("012345678")
    with pytest.raises(SpecError, match=r"count: 10 is not in \[1, 9\]"):
        choose_prompts(tmp_path / "p.csv", 10)
    with pytest.raises(SpecError, match="choice: 'last' is not one of first, hash"):
        choose_prompts(tmp_path / "p.csv", 1, "last")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("captions_val2014.json", r"annotations_trainval2014\.zip and put its file of that name there"),
        ("Train_GCC-training.tsv", r"ConceptualCaptions/download and put it there"),
        ("mine.csv", r"is not a file; give CSV with a column `caption`"),
    ],
)
def test_missing_file_says_where_it_comes_from(tmp_path, name, message):
    with pytest.raises(SpecError, match=message):
        read_prompts(tmp_path / name)


def test_identity_twice_and_missing_column_are_refused(tmp_path):
    (tmp_path / "p.csv").write_text("id,caption\n1,a\n1,b\n")
    with pytest.raises(SpecError, match="the id '1' twice"):
        choose_prompts(tmp_path / "p.csv", 1)
    (tmp_path / "p.csv").write_text("id,text\n1,a\n")
    with pytest.raises(SpecError, match=r"no column `caption`, but 'id', 'text'; a table has a header"):
        read_prompts(tmp_path / "p.csv")


def test_command_chooses_disjoint_prompts(tmp_path, capsys):
    (tmp_path / "captions_val2014.json").write_text(json.dumps(COCO))
    source = ["prompts", "--source", str(tmp_path / "captions_val2014.json"), "--out", str(tmp_path / "out.csv")]
    other = ["--disjoint-from", str(gcc(tmp_path, ["A red bus."]))]
    assert main([*source, "--count", "2", *other]) == 2
    assert "count: 2 is not in [1, 1], the prompts of" in capsys.readouterr().err
    assert main([*source, "--count", "1", *other]) == 0
    assert read_prompts(tmp_path / "out.csv") == [Prompt("7", "A dog")]
    first = sorted(read_prompts(tmp_path / "captions_val2014.json"), key=lambda p: sha256(p.id.encode()).digest())[:1]
    assert main([*source, "--count", "1"]) == 0 and read_prompts(tmp_path / "out.csv") == first


def test_large_files_are_not_read_before_a_job(tmp_path, monkeypatch):
    """A model file may name more prompts than its .tsv has: the prompts rule says so; a missing one is an error."""
    import yaml

    monkeypatch.chdir(ROOT)
    record = yaml.safe_load(Path("config/models/emoji-sd3.yaml").read_text())
    record["calibration"] = {"prompts": str(gcc(tmp_path, ["a cat"])), "count": 100, "choice": "hash"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(record))
    monkeypatch.setattr("eval.sweep.config.MODELS", tmp_path)
    assert read_model("mine")["calibration"]["count"] == 100
    (tmp_path / "Train_GCC-training.tsv").unlink()
    with pytest.raises(
        SpecError, match=r"mine\.yaml: calibration\.prompts: .*Train_GCC-training\.tsv' is not a file; get"
    ):
        read_model("mine")
