"""Caption files that people bring: every format is read right or refused by name, and ids never are paths."""

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import count

from obsdiff.captions.formats import READERS
from obsdiff.captions.prompts import (
    LONGEST,
    NOT_TEXT,
    Prompt,
    choose_prompts,
    file_name,
    identity,
    read_prompts,
    write_prompts,
)
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
SUFFIXES = sorted(READERS)
CAPTIONS = ["a café, open", "two “dogs” & $5", "日本の猫 🐈"]
NOTES = [{"image_id": i, "id": i, "caption": c} for i, c in enumerate(CAPTIONS)]
WRITTEN = {
    "": "\n".join(CAPTIONS),
    ".txt": "\n".join(CAPTIONS),
    ".csv": "caption\n" + "".join(f'"{c}"\n' for c in CAPTIONS),
    ".tsv": "".join(f"{c}\thttp://example.org/{i}\n" for i, c in enumerate(CAPTIONS)),
    ".json": json.dumps({"annotations": NOTES}, ensure_ascii=False),
    ".jsonl": "".join(json.dumps({"caption": c}, ensure_ascii=False) + "\n" for c in CAPTIONS),
    ".ndjson": "".join(json.dumps(c) + "\n" for c in CAPTIONS),
}
"""the same captions in every format"""


def file_of(folder: Path, suffix: str, content: bytes | str) -> Path:
    path = folder / f"captions{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def accepted(path: Path) -> list[Prompt] | None:
    """What is read, held to what every prompt must be; None where the file is refused by its name."""
    try:
        found = read_prompts(path)
    except SpecError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        count("caption files", "refused")
        return None
    assert found and len({p.id for p in found}) == len(found)
    for prompt in found:
        assert prompt.caption == prompt.caption.strip() and 0 < len(prompt.caption) <= LONGEST
        assert not NOT_TEXT.search(prompt.caption + prompt.id) and prompt.id
    count("caption files", "read right")
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read_whatever_its_case_encoding_and_line_ends(suffix, tmp_path):
    text = WRITTEN[suffix]
    for case in (str.lower, str.upper):
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            for end in ("\n", "\r\n"):
                path = file_of(tmp_path, case(suffix), text.replace("\n", end).encode(encoding))
                assert [p.caption for p in read_prompts(path)] == CAPTIONS
    with pytest.raises(SpecError, match=r"is not UTF-8 at byte \d+; .*`iconv -f latin1 -t utf-8`"):
        read_prompts(file_of(tmp_path, suffix, "é, ü\n".encode("latin-1")))


@pytest.mark.malformed
@given(
    st.sampled_from(SUFFIXES),
    st.one_of(st.binary(max_size=80), st.text(max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass"))),
)
def test_any_bytes_are_read_or_refused_by_name(tmp_path_factory, suffix, content):
    accepted(file_of(tmp_path_factory.mktemp("any"), suffix, content))


@pytest.mark.malformed
@given(
    st.sampled_from(SUFFIXES),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["cut", "flip", "insert", "double"]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([b"\0", b"\xff", b'"', b"\t", b"\n", b",", b"{", b"]", b"\\ud800", b"\x07"]),
)
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path_factory, suffix, encoding, how, where, put):
    """Valid files of every format and encoding, cut, flipped, doubled, or with foreign bytes in them."""
    content = WRITTEN[suffix].encode(encoding)
    i = int(where * len(content))
    mutated = {
        "cut": content[:i],
        "flip": content[:i] + bytes([content[i] ^ 1 << (i % 8)]) + content[i + 1 :],
        "insert": content[:i] + put + content[i:],
        "double": content[: 2 * i] + content[i:],
    }[how]
    accepted(file_of(tmp_path_factory.mktemp("damaged"), suffix, mutated))


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", "id,text,prompt\n1,a,b\n", r"no column `caption`, but 'id', 'text', 'prompt'"),
        (".csv", "id;caption\n1;a\n", r"no column `caption`, but 'id;caption'"),
        (".csv", "caption,id,caption\na,1,b\n", r"the column `caption` twice"),
        (".csv", "id,caption\n", "holds none"),
        (".csv", "", "holds none"),
        (".csv", "id,caption\n1,red, green\n", r"3 fields in line 2 and 2 in its header; quote a caption"),
        (".csv", "id,caption\n1\n", r"1 field in line 2 and 2 in its header"),
        (".csv", 'id,caption\n1,"a cat\n2,a dog\n', r"not a table that can be read .*every quotation mark"),
        (".csv", "caption\na\0b\n", r"a NUL byte in line 2"),
        (".csv", "caption\na\n".encode("utf-16")[2:], r"a NUL byte in line 1: .*UTF-16 without"),
        (".csv", "id,caption\n1\x07,a\n", r"for an id in line 2"),
        (".tsv", "0001\ta cat\n", r"something else in line 1 than a caption, a tab and the address"),
        (".tsv", "a\thttp://x\tmore\n", r"something else in line 1"),
        (".txt", "image,caption\n1.jpg,a dog\n", r"reads like a table with a header"),
        (".txt", '["a cat", "a dog"]\n', r"reads like JSON"),
        (".txt", "x" * (LONGEST + 1), r"a caption of 10001 characters in line 1; at most 10000"),
        (".txt", b"\xff\xfe\0\0a\0\0\0", r"is UTF-32; convert it by `iconv -f utf-32 -t utf-8`"),
        (".txt", b"\x1f\x8b\x08\0", r"compressed by gzip; unpack it by `gunzip`"),
        (".txt.gz", b"a cat", r"has the suffix '\.gz'; give one of \.csv"),
        (".csv", b"PK\x03\x04", r"a ZIP archive or a spreadsheet"),
        (".json", '{"a": 1}', r"something else than captions at \['a'\]; MS-COCO captions have"),
        (".json", '{"a": "cat", "a": "dog"}', r"the key 'a' stands there twice"),
        (".json", '["a cat", {"text": "a dog"}]', r"has the keys text in entry 2; give a caption"),
        (".json", "[null]", r"has None in entry 1"),
        (".json", "[" * 100_000, r"cannot be read"),
        (".json", '{"annotations": [{"image_id": 1.5, "id": 1, "caption": "a"}]}', r"at annotation 1 .*not an integer"),
        (".json", '{"annotations": [{"image_id": 1, "id": 1, "caption": null}]}', r"not text at annotation 1"),
        (".jsonl", '{"caption": "a"}\n{"caption": \n', r"cannot be read in line 2"),
        (".jsonl", '{"caption": 5}\n', r"has 5 for a caption in line 1"),
        (".jsonl", '{"caption": "a", "id": [1]}\n', r"has \[1\] for an id in line 1"),
        (".jsonl", '{"caption": "a", "id": 1}\n{"caption": "b", "id": "1"}\n', r"the id '1' twice, in line 2 again"),
    ],
)
def test_what_cannot_be_read_is_refused_by_file_place_and_next_step(suffix, content, message, tmp_path):
    with pytest.raises(SpecError, match=message) as caught:
        read_prompts(file_of(tmp_path, suffix, content))
    assert str(tmp_path / "captions") in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "content", "prompts"),
    [
        (
            ".json",
            '["a cat", {"id": 7, "caption": " a dog "}]',
            [Prompt(identity("a cat"), "a cat"), Prompt("7", "a dog")],
        ),
        (".json", '{"val/0001": "a cat", "../x": "a dog"}', [Prompt("val/0001", "a cat"), Prompt("../x", "a dog")]),
        (
            ".jsonl",
            '"a cat"\n{"id": "x", "caption": "a dog"}',
            [Prompt(identity("a cat"), "a cat"), Prompt("x", "a dog")],
        ),
        (".tsv", "id\tcaption\turl\n1\ta cat\tu\n", [Prompt("1", "a cat")]),
        (".csv", 'id, caption ,x\n 1 ,"a ""big""\ncat",\n', [Prompt("1", 'a "big"\ncat')]),
        (".txt", "{a cat}\n", [Prompt(identity("{a cat}"), "{a cat}")]),
    ],
)
def test_other_shapes_are_read(suffix, content, prompts, tmp_path):
    assert read_prompts(file_of(tmp_path, suffix, content)) == prompts


def test_what_is_passed_over_is_counted_and_said(tmp_path, capsys):
    file_of(tmp_path, ".txt", "a cat\n\n  \na dog\na cat\nbe\x07ll\n")
    for read in (read_prompts, lambda path: choose_prompts(path, 2, "hash")):
        assert {p.caption for p in read(tmp_path / "captions.txt")} == {"a cat", "a dog"}
        said = "captions.txt: passed over 4: 2 empty, 1 repeated, 1 with control characters\n"
        assert capsys.readouterr().err.endswith(said)
    notes = [*NOTES, {"image_id": 0, "id": 9, "caption": "another"}, {"image_id": 9, "id": 10, "caption": " "}]
    assert len(read_prompts(file_of(tmp_path, ".json", json.dumps({"annotations": notes})))) == len(CAPTIONS)
    assert "passed over 2: 1 empty, 1 further captions of an image\n" in capsys.readouterr().err
    path = file_of(tmp_path, ".csv", WRITTEN[".csv"])
    read_prompts(path)
    assert capsys.readouterr().err == ""
    (tmp_path / "benchmark.txt").write_text(CAPTIONS[0])
    assert len(choose_prompts(path, 2, disjoint_from=tmp_path / "benchmark.txt")) == 2
    assert re.search(r"captions\.csv: passed over 1: 1 in .*benchmark\.txt too\n", capsys.readouterr().err)


IDS = st.one_of(st.text(min_size=1, max_size=300), st.from_regex(r"[A-Za-z0-9._/\\-]{1,90}", fullmatch=True))


@given(IDS, IDS)
def test_file_names_are_safe_and_differ_where_ids_do(one, other):
    names = [file_name(text) for text in (one, other) if not NOT_TEXT.search(text)]
    for name in names:
        assert re.fullmatch(r"[a-z0-9_-]([a-z0-9._-]{0,78}[a-z0-9_-])?", name)
    if len(names) == 2 and one != other:
        assert names[0].casefold() != names[1].casefold()


def test_plain_ids_keep_their_names_and_others_never_are_paths():
    for split in ("benchmark", "calibration"):
        assert all(p.file == p.id for p in read_prompts(ROOT / "zoo/emoji-data" / f"{split}.csv"))
    assert all(file_name(text) == text for text in ("391895", identity("a cat"), "a.b_c-d", "x" * 80, "console"))
    for text in ("../../x", "/etc/x", "val/0001", "a\\b", ".x", "x.", "A", "é", "con", "lpt1.x", "x" * 81, "a b"):
        assert file_name(text) == f"sha256-{sha256(text.encode()).hexdigest()[:32]}"
    taken = file_name("A")
    assert file_name(taken) != taken


def test_written_prompts_are_read_again(tmp_path):
    prompts = [Prompt("../../x", 'a "cat",\nsitting'), Prompt("é", "$ \\alpha_{"), Prompt("-", "=1+1")]
    write_prompts(tmp_path / "out.csv", prompts)
    assert read_prompts(tmp_path / "out.csv") == prompts
