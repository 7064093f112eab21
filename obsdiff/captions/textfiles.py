"""Text files of others: UTF-8 with or without a byte order mark, UTF-16 with one; what is something else is named."""

from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

from obsdiff.errors import SpecError

MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""byte order marks → encodings, the longer ones first"""
ENCODINGS = ("utf-8-sig", "utf-16")
FOREIGN = {
    b"\x1f\x8b": "compressed by gzip; unpack it by `gunzip`",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"BZh": "compressed by bzip2; unpack it by `bunzip2`",
    b"\xfd7zXZ": "compressed by xz; unpack it by `unxz`",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it by `unzstd`",
    b"PAR1": "a Parquet table; save it as CSV",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}
"""first bytes of files that hold no plain text, and what they are"""


def refuse(path: Path, why: str) -> NoReturn:
    raise SpecError(f"prompts: {str(path)!r} {why}")


def encoding_of(path: Path) -> str:
    """utf-8-sig or utf-16, by the byte order mark.

    Raises:
        SpecError: by its first bytes the file is no text, or of another encoding.
    """
    with path.open("rb") as file:
        head = file.read(8)
    for start, what in FOREIGN.items():
        if head.startswith(start):
            refuse(path, f"is {what}")
    found = next((name for mark, name in MARKS.items() if head.startswith(mark)), ENCODINGS[0])
    if found not in ENCODINGS:
        refuse(path, f"is {found.upper()}; convert it by `iconv -f {found} -t utf-8`")
    return found


def refuse_encoding(path: Path, encoding: str) -> NoReturn:
    """Say at which byte of the file its text ends to be of the encoding, and how to convert it."""
    place, name = "its end", encoding.removesuffix("-sig").upper()
    try:
        path.read_bytes().decode(encoding.removesuffix("-sig"))
    except UnicodeDecodeError as error:
        place = f"byte {error.start}"
    refuse(path, f"is not {name} at {place}; if it is Latin-1, convert it by `iconv -f latin1 -t utf-8`")


def lines_of(path: Path, encoding: str) -> Generator[str, None, None]:
    """Lines with what ends them: LF, CR LF or CR."""
    with path.open(newline="", encoding=encoding) as file:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                refuse(path, f"has a NUL byte in line {number}: it is not text, or UTF-16 without a byte order mark")
            yield line
