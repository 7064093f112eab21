"""Images that people bring: every format and mode is read right or refused by name."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import count
from PIL import Image

from eval.images.image_files import ImageFiles
from eval.images.opening import fault, open_image
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
RAMP = np.linspace(0, 255, 16 * 8).round().astype(np.uint8).reshape(16, 8)
"""a grey ramp, dark to light"""


DEEP: dict[str, Any] = {
    "I;16": RAMP.astype(np.uint16) * 257,
    "I": RAMP.astype(np.int32) * 257,
    "F": (RAMP / 255).astype(np.float32),
}
"""the ramp in more bits, which PNG and TIFF alone can hold"""


def encoded(mode: str, kind: str) -> bytes | None:
    """The ramp as a file; None where the format has no such mode, or Pillow would change the image to write it."""
    changed = mode in DEEP and kind not in ("PNG", "TIFF")
    if changed or (mode, kind) in (("1", "JPEG"), ("RGBA", "GIF"), ("LA", "GIF")):
        return None
    grey, file = Image.fromarray(DEEP.get(mode, RAMP)), BytesIO()
    image = grey if mode in DEEP else (grey if mode == "P" else grey.convert("RGB")).convert(mode)
    exact: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    try:
        image.save(file, kind, **exact.get(kind, {}))
    except (OSError, ValueError, KeyError):
        return None
    return file.getvalue()


FILES = {(m, k): data for m in MODES for k in FORMATS if (data := encoded(m, k)) is not None}


def read(folder: Path, data: bytes, name: str = "picture") -> np.ndarray:
    (folder / name).write_bytes(data)
    return np.asarray(open_image(folder / name))


@pytest.mark.parametrize(("mode", "kind"), FILES)
def test_every_mode_of_every_format_is_the_same_image(mode, kind, tmp_path):
    """Whatever the file's name; bilevel files have the ramp's halves, lossy ones nearly the ramp."""
    found = read(tmp_path, FILES[mode, kind], "of.unknown")
    assert found.shape == (16, 8, 3) and found.dtype == np.uint8 and (found == found[..., :1]).all(axis=-1).mean() > 0.5
    if mode == "1":
        assert set(np.unique(found)) <= {0, 255} and found[:4].mean() < found[-4:].mean()
    else:
        assert abs(found.astype(int) - RAMP[..., None]).max() <= 3
    assert ImageFiles([]).read(tmp_path / "of.unknown").shape == (3, 16, 8)


def test_every_mode_and_format_is_tried():
    assert {kind for _, kind in FILES} == set(FORMATS)
    assert {mode for mode, _ in FILES} == set(MODES) and len(FILES) > 30


@pytest.mark.malformed
@given(
    st.sampled_from(sorted(FILES)),
    st.sampled_from(["cut", "flip", "zeros", "junk"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=16),
)
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path_factory, which, how, where, junk):
    data, folder = FILES[which], tmp_path_factory.mktemp("damaged")
    i = int(where * len(data))
    mutated = {
        "cut": data[:i],
        "flip": data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1 :],
        "zeros": data[:i] + bytes(len(data) - i),
        "junk": data[:i] + junk + data[i + len(junk) :],
    }[how]
    (folder / "x.png").write_bytes(mutated)
    try:
        found = open_image(folder / "x.png")
        assert found.mode == "RGB" and min(found.size) > 0
        count("pictures", "read right")
    except SpecError as error:
        assert str(folder / "x.png") in str(error)
        count("pictures", "refused")
    try:
        assert len(ImageFiles.of_folder(folder)) == 1
    except SpecError as error:
        assert str(folder / "x.png") in str(error)


def test_transparent_parts_are_white(tmp_path):
    for mode, clear, solid in (("RGBA", (9, 9, 9, 0), (9, 9, 9, 255)), ("LA", (9, 0), (9, 255))):
        image = Image.new(mode, (2, 1), clear)
        image.putpixel((1, 0), solid)
        file = BytesIO()
        image.save(file, "PNG")
        assert read(tmp_path, file.getvalue()).tolist() == [[[255] * 3, [9] * 3]]
    half, file = Image.new("RGBA", (1, 1), (0, 0, 0, 128)), BytesIO()
    half.save(file, "WEBP", lossless=True, exact=True)
    assert read(tmp_path, file.getvalue()).tolist() == [[[127] * 3]]
    for kind, mode in (("PNG", "P"), ("GIF", "P"), ("PNG", "RGB"), ("PNG", "L")):
        image = Image.new("L", (2, 1), 10).convert(mode)
        image.putpixel((1, 0), 40 if mode != "RGB" else (40, 40, 40))
        file = BytesIO()
        key = image.getpixel((0, 0))
        image.save(file, kind, transparency=key)
        assert read(tmp_path, file.getvalue())[0, 0].tolist() == [255] * 3


def test_images_stand_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, more in (("JPEG", {"quality": 100}), ("PNG", {}), ("WEBP", {"lossless": True})):
        file = BytesIO()
        Image.fromarray(RAMP).convert("RGB").save(file, kind, exif=exif, **more)
        found = read(tmp_path, file.getvalue())
        assert found.shape == (8, 16, 3) and abs(found[..., 0].astype(int) - np.rot90(RAMP, -1)).max() <= 3


def png(colour: int, depth: int, pixel: list[int]) -> bytes:
    """A PNG of one pixel, by hand: Pillow writes no colours of 16 bits."""
    bits = "".join(f"{value:0{depth}b}" for value in pixel)
    row = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 1, 1, depth, colour, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" + row)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("colour", "depth", "pixel", "expected"),
    [
        (0, 1, [1], [255] * 3),
        (0, 2, [2], [170] * 3),
        (0, 4, [4], [68] * 3),
        (0, 16, [0x8080], [128] * 3),
        (2, 16, [0x1010, 0x8080, 0xFFFF], [16, 128, 255]),
        (4, 16, [0, 0], [255] * 3),
        (6, 16, [0x1010, 0x2020, 0x3030, 0xFFFF], [16, 32, 48]),
        (6, 16, [0x1010, 0x2020, 0x3030, 0], [255] * 3),
    ],
)
def test_every_depth_of_png_is_scaled_to_8_bits(colour, depth, pixel, expected, tmp_path):
    assert read(tmp_path, png(colour, depth, pixel)).tolist() == [[expected]]


def test_first_frame_of_several(tmp_path):
    file = BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert read(tmp_path, file.getvalue())[0, 0].tolist() == [255, 0, 0]


def test_values_without_a_scale_are_refused(tmp_path):
    for values, message in (
        (np.full((2, 2), 2.5, np.float32), r"values are 2\.5 to 2\.5; scale them to 8 bits"),
        (np.full((2, 2), np.nan, np.float32), "NaN or infinity"),
        (np.full((2, 2), -1, np.int32), "values are -1 to -1"),
    ):
        Image.fromarray(values).save(tmp_path / "x.tif")
        with pytest.raises(SpecError, match=rf"x\.tif' cannot be read: .*{message}"):
            open_image(tmp_path / "x.tif")


def bomb() -> bytes:
    """A PNG whose header promises 40,000² pixels."""
    file = BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", 40_000, 40_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"no image", "it is not PNG, JPEG, WebP, BMP, TIFF or GIF"),
        (FILES["RGB", "JPEG"][:200], "[Tt]runcated"),
        (FILES["RGB", "PNG"][:60], "[Tt]runcated"),
        (bomb(), "exceeds limit|decompression bomb"),
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG", "bomb"],
)
def test_a_broken_image_is_named_in_a_folder_too(data, message, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(data)
    for take in (open_image, lambda path: next(ImageFiles.of_folder(path.parent).batches())):
        with pytest.raises(SpecError, match=rf"broken\.jpg' cannot be read: .*({message})"):
            take(tmp_path / "broken.jpg")


def test_a_folder_is_read_with_all_below_it_and_what_is_passed_over_is_counted(tmp_path):
    """By content, links followed, in the order of paths; a link to a folder above ends."""
    real, other = tmp_path / "real", tmp_path / "other"
    (real / "cats").mkdir(parents=True)
    (real / "__MACOSX").mkdir()
    (real / ".thumbnails").mkdir()
    other.mkdir()
    for name, kind in (("b.PNG", "PNG"), ("a.jpeg", "JPEG"), ("cats/x.webp", "WEBP"), ("cats/y", "BMP")):
        (real / name).write_bytes(FILES["RGB", kind])
    (other / "z.tif").write_bytes(FILES["RGB", "TIFF"])
    for name in ("._b.PNG", "__MACOSX/._a.jpeg", ".DS_Store", ".thumbnails/a.png"):
        (real / name).write_bytes(FILES["RGB", "PNG"] if name.endswith("a.png") else b"\0\5\x16\7")
    for name in ("Thumbs.db", "cats/labels.txt", "c.heic"):
        (real / name).write_bytes(b"labels")
    (real / "dogs").symlink_to(other)
    (real / "cats" / "up").symlink_to(real)
    os.mkfifo(real / "pipe.png")
    found = ImageFiles.of_folder(real)
    assert [str(p.relative_to(real)) for p in found.paths] == ["a.jpeg", "b.PNG", "cats/x.webp", "cats/y", "dogs/z.tif"]
    assert found.passed == {"hidden": 4, "not images": 3, "of formats that are not read": 1} and len(found.digests) == 5
    (real / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(SpecError, match=r"gone\.png' cannot be read: .*No such file"):
        ImageFiles.of_folder(real)
    (other / "z.tif").rename(other / "z.txt")
    (other / "z.txt").write_text("none")
    with pytest.raises(SpecError, match=r"holds no PNG.* images \(of its 1 files not images\)"):
        ImageFiles.of_folder(other)
    with pytest.raises(SpecError, match="is not a folder"):
        ImageFiles.of_folder(tmp_path / "none")


def test_images_of_two_sizes_do_not_pair(tmp_path):
    for name, size in (("a.png", (4, 4)), ("b.png", (4, 6))):
        Image.new("RGB", size).save(tmp_path / name)
    with pytest.raises(SpecError, match=r"b\.png' is 4×6, a\.png 4×4"):
        next(ImageFiles.of_folder(tmp_path).batches())


def test_the_shipped_reference_is_what_it_was():
    files = ImageFiles.of_folder(ROOT / "zoo/emoji-data/reference")
    assert len(files) == 1024 and not files.passed and files.sha256.startswith("fa9c1fa1")
    for path in files.paths[::128]:
        assert (np.asarray(Image.open(path).convert("RGB")) == np.asarray(open_image(path))).all()


def test_black_and_flat_are_told():
    assert fault(np.zeros((2, 2, 3), np.uint8)) == "black"
    assert fault(np.full((2, 2, 3), [9, 8, 7], np.uint8)) == "flat"
    assert fault(np.eye(3, dtype=np.uint8)[None]) is None
