"""Files of captions in the formats that people have: what each row of a file says, and what is no row.

.csv, .tsv      a table whose header has a column `caption` and optionally `id`
.tsv            without a header Conceptual Captions (GCC3M): caption, tab, address of the image
.json           MS-COCO captions (of an image's captions the one with the lowest annotation id; the image's id is the
                prompt's); a list of captions or of {"caption", "id"}; or {id: caption}
.jsonl .ndjson  a caption or {"caption", "id"} per line
.txt or none    one caption per line

Suffixes are read regardless of case. Text is UTF-8 with or without a byte order mark, or UTF-16 with one.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from obsdiff.captions.textfiles import encoding_of, lines_of, refuse, refuse_encoding

COLUMNS = "a table has a header with a column `caption` and optionally `id`"


class Row(NamedTuple):
    """What a file says in one place, not checked yet; `caption` is None for a row without any."""

    id: Any
    caption: Any
    where: str


def rows_of(path: Path) -> Iterator[Row | str]:
    """The rows of a file in its order, and in between the reason of every row that is passed over by its format.

    Raises:
        SpecError: the file is of an unknown format or encoding, or a row is malformed; the message says where.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        refuse(path, f"has the suffix {path.suffix!r}; give one of {', '.join(filter(None, READERS))}")
    encoding = encoding_of(path)
    try:
        yield from reader(path, encoding)
    except UnicodeError:
        refuse_encoding(path, encoding)
    except csv.Error as error:
        refuse(path, f"is not a table that can be read ({error}); every quotation mark that opens a field closes it")


def from_table(path: Path, encoding: str, delimiter: str = ",") -> Iterator[Row | str]:
    """A table with a header; a row holds as many fields as the header."""
    with closing(lines_of(path, encoding)) as lines:
        table = csv.reader(lines, strict=True, delimiter=delimiter)
        head = [name.strip() for name in next((row for row in table if row), [])]
        check_header(path, head)
        place = head.index("caption")
        identity = head.index("id") if "id" in head else None
        for row in table:
            where = f"line {table.line_num}"
            if not row:
                yield "empty"
                continue
            if len(row) != len(head):
                refuse(
                    path,
                    f"has {len(row)} field{'s' * (len(row) != 1)} in {where} and {len(head)} in its header; quote a "
                    f"caption that holds a {'comma' if delimiter == ',' else 'tab'}",
                )
            yield Row(None if identity is None else row[identity].strip() or None, row[place], where)


def check_header(path: Path, head: Sequence[str]) -> None:
    shown = ", ".join(repr(name[:40]) for name in head[:8])
    if "caption" not in head:
        refuse(path, f"has no column `caption`, but {shown}; {COLUMNS}" if head else f"holds none; {COLUMNS}")
    for name in ("caption", "id"):
        if head.count(name) > 1:
            refuse(path, f"has the column `{name}` twice ({shown})")


def from_tsv(path: Path, encoding: str) -> Iterator[Row | str]:
    """A table with a header, or Conceptual Captions without."""
    with closing(lines_of(path, encoding)) as lines:
        for number, line in enumerate(lines, 1):
            fields = line.split("\t")
            where = f"line {number}"
            if number == 1 and "caption" in map(str.strip, fields):
                yield from from_table(path, encoding, "\t")
                return
            if len(fields) > 2 or (len(fields) == 2 and "://" not in fields[1]):
                refuse(
                    path,
                    f"has something else in {where} than a caption, a tab and the address of an image; {COLUMNS}, "
                    "separated by tabs",
                )
            yield Row(None, fields[0], where)


def from_text(path: Path, encoding: str) -> Iterator[Row | str]:
    """One caption per line."""
    first = True
    with closing(lines_of(path, encoding)) as lines:
        for number, line in enumerate(lines, 1):
            if first and line.strip():
                first = False
                if (kind := kind_of(line.strip())) is not None:
                    refuse(path, f"reads like {kind}, but its name says text; give its name the suffix of what it is")
            yield Row(None, line, f"line {number}")


def kind_of(line: str) -> str | None:
    """What a text file's first line says that it is, where it is something else: a table or JSON."""
    for delimiter in ",\t;":
        names = [field.strip(' "') for field in line.split(delimiter)]
        if "caption" in names and all(re.fullmatch(r"\w+", name) for name in names):
            return "a table with a header"
    if line in ("[", "{"):
        return "JSON"
    try:
        return "JSON" if line[0] in "[{" and json.loads(line) is not None else None
    except (ValueError, RecursionError):
        return None


def from_lines_of_json(path: Path, encoding: str) -> Iterator[Row | str]:
    with closing(lines_of(path, encoding)) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield entry(path, parsed(path, line, f" in line {number}"), f"line {number}")
            else:
                yield "empty"


def from_json(path: Path, encoding: str) -> Iterator[Row | str]:
    """MS-COCO's, or the plain ones."""
    with path.open(encoding=encoding) as file:
        record = parsed(path, file.read())
    if isinstance(record, dict) and "annotations" not in record:
        strangers = [key for key, value in record.items() if not isinstance(value, str)]
        if strangers or not record:
            refuse(path, f"holds something else than captions at {strangers[:1] or 'its start'}; {SHAPES}")
        record = [{"id": key, "caption": value} for key, value in record.items()]
    if isinstance(record, list):
        for i, value in enumerate(record, 1):
            yield entry(path, value, f"entry {i}")
    elif isinstance(record, dict) and isinstance(record["annotations"], list):
        yield from coco(path, record["annotations"])
    else:
        refuse(path, f"holds something else than captions; {SHAPES}")


SHAPES = (
    "MS-COCO captions have {'annotations': [{'image_id', 'id', 'caption'}, …]}; a list of captions and {id: caption} "
    "can be read too"
)


def parsed(path: Path, text: str, where: str = "") -> Any:
    """JSON without a key twice."""
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        refuse(path, f"cannot be read{where}: {error}; {SHAPES}")


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice[:40]!r} stands there twice")
    return found


def entry(path: Path, value: Any, where: str) -> Row:
    """A caption, or {"caption", "id"}."""
    if isinstance(value, str):
        return Row(None, value, where)
    if not isinstance(value, dict) or "caption" not in value:
        what = f"the keys {', '.join(map(str, value))}" if isinstance(value, dict) else f"{value!r:.40}"
        refuse(path, f"has {what:.200} in {where}; give a caption, or {{'caption': …, 'id': …}}")
    return Row(value.get("id"), value["caption"], where)


def coco(path: Path, annotations: Sequence[Any]) -> Iterator[Row | str]:
    """One caption per image, in the order of image ids; the other captions of an image are passed over."""
    lowest: dict[int, tuple[int, str]] = {}
    for i, note in enumerate(annotations, 1):
        try:
            image, own, caption = whole(note["image_id"]), whole(note["id"]), note["caption"]
        except (KeyError, TypeError, ValueError) as error:
            refuse(path, f"cannot be read at annotation {i} ({error!r}); {SHAPES}")
        if not isinstance(caption, str):
            refuse(path, f"has a caption that is not text at annotation {i}; {SHAPES}")
        if not caption.strip():
            yield "empty"
            continue
        if image in lowest:
            yield "further captions of an image"
        lowest[image] = min((own, caption), lowest.get(image, (own, caption)))
    for image, (own, caption) in sorted(lowest.items()):
        yield Row(str(image), caption, f"annotation {own}")


def whole(value: Any) -> int:
    """An integer, or one written as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r:.40} is not an integer")
    return int(value)


Reader = Callable[[Path, str], Iterator[Row | str]]
READERS: dict[str, Reader] = {
    ".csv": from_table,
    ".tsv": from_tsv,
    ".json": from_json,
    ".jsonl": from_lines_of_json,
    ".ndjson": from_lines_of_json,
    ".txt": from_text,
    "": from_text,
}
