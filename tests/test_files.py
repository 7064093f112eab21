"""The laws of files that a later run trusts: whole or not there, read or refused, hashed once, locked if that works."""

import errno
import fcntl
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obsdiff.storage import cache, files, locks
from obsdiff.storage.cache import known_hash
from obsdiff.storage.files import DamagedFile, read_json, replacing, seal, sealed, write_json
from obsdiff.storage.locks import locked

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
GARBAGE = {
    "empty": b"",
    "cut": b'{"a": [1, 2',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "NaN": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "a key twice": b'{"a": 1, "a": 1}',
    "two records": b"{}{}",
    "endless integer": b"9" * 9999,
    "nested": b"[" * 100_000,
}


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o640
    os.umask(before)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, umask):
    path = tmp_path / "deep" / "file"
    with replacing(path) as side:
        side.write_text("one")
        side.chmod(0o600)
        assert not path.exists() and side.parent == path.parent
    assert path.read_text() == "one" and path.stat().st_mode & 0o777 == umask
    for error in (KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises(type(error)) as raised, replacing(path) as side:
            side.write_text("half")
            raise error
        assert path.read_text() == "one" and os.listdir(path.parent) == ["file"]
    assert raised.value.filename == str(path)
    with pytest.raises(ValueError, match=r"metrics\.fid\.1 is not a finite number"):
        write_json(path, {"metrics": {"fid": [1.0, math.nan]}})
    assert path.read_text() == "one"


@given(JSON)
def test_json_comes_back_and_its_seal_tells_an_edit(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "given.json"
    write_json(path, seal({"value": value}))
    record = read_json(path)
    assert record["value"] == value and sealed(record)
    assert not sealed(record | {"more": 1}) and not sealed({k: v for k, v in record.items() if k != "value"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_json(path) == record


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_what_is_not_json_is_damaged_by_name(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"record\.json: not JSON"):
        read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "other.json")


@pytest.fixture
def reads(monkeypatch, tmp_path) -> list[Path]:
    """Which files were read to be hashed; the clock is a minute ahead, so that files are old enough to be known."""
    found: list[Path] = []
    whole, now = cache.file_hash, cache.time.time
    monkeypatch.setattr(cache, "file_hash", lambda path: found.append(path) or whole(path))
    monkeypatch.setattr(cache.time, "time", lambda: now() + 60)
    monkeypatch.setenv("OBSDIFF_CACHE", str(tmp_path / "cache"))
    return found


def test_a_large_file_is_hashed_again_when_anything_about_it_changed(tmp_path, reads, monkeypatch):
    path, link = tmp_path / "large", tmp_path / "link"
    data = bytes(cache.REMEMBERED_BYTES)
    path.write_bytes(data)
    link.symlink_to(path)
    first, about = known_hash(path), path.stat()
    assert known_hash(link) == known_hash(path) == first and len(reads) == 1

    def changed(what: str) -> None:
        before = len(reads)
        assert known_hash(path) == files.hash_of(path.read_bytes()) and len(reads) == before + 1, what
        assert known_hash(path) == files.hash_of(path.read_bytes()) and len(reads) == before + 1, what

    path.write_bytes(data + b"x")
    changed("size")
    path.write_bytes(b"x" + data[1:])
    changed("content")
    path.write_bytes(b"y" + data[1:])
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    changed("content, with the modification time set back")
    other = tmp_path / "other"
    other.write_bytes(b"z" + data[1:])
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    other.replace(path)
    changed("another file in its place")
    monkeypatch.setenv("OBSDIFF_VERIFY", "1")
    known_hash(path)
    assert len(reads) == 6


def test_a_hash_needs_no_cache(tmp_path, reads, monkeypatch):
    """Damaged entries, a cache that cannot be made, and files too young to be trusted: read again."""
    path = tmp_path / "large"
    path.write_bytes(bytes(cache.REMEMBERED_BYTES))
    first = known_hash(path)
    (entry,) = (tmp_path / "cache" / "hashes").iterdir()
    for content in (*GARBAGE.values(), b"[]", b"{}", entry.read_bytes().replace(b'"content": "', b'"content": "0')):
        entry.write_bytes(content)
        assert known_hash(path) == first
    assert len(reads) == 4 + len(GARBAGE)
    monkeypatch.setenv("OBSDIFF_CACHE", str(path / "below a file"))
    assert known_hash(path) == first == known_hash(path)
    assert len(reads) == 6 + len(GARBAGE)
    monkeypatch.undo()
    monkeypatch.setenv("OBSDIFF_CACHE", str(tmp_path / "empty"))
    path.write_bytes(bytes(cache.REMEMBERED_BYTES))
    assert known_hash(path) == first and not (tmp_path / "empty").exists()


def test_a_lock_keeps_other_processes_out_until_it_dies(tmp_path):
    path = tmp_path / "deep" / "lock"
    code = "import sys; from pathlib import Path; from obsdiff.storage.locks import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        holder.kill()
    with locked(path) as held:
        assert held


@pytest.mark.parametrize("number", sorted(locks.UNSUPPORTED))
def test_without_locks_work_goes_on(tmp_path, monkeypatch, capsys, number):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "lock", wait=False) as held:
        assert not held
    assert "this file system has no locks; going on without" in capsys.readouterr().err


def test_a_lock_that_cannot_be_made_or_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    with locked(tmp_path / "file" / "lock") as held:
        assert not held
    assert "no lock can be made here" in capsys.readouterr().err

    def flock(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Bad file descriptor"), locked(tmp_path / "lock"):
        pass
