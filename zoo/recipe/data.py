"""The emoji world: Noto pictures on white with captions made from their Unicode names.

Source: the npm package `emoji-datasource-google` (MIT; the art is Noto Emoji, Apache-2.0). `npm pack` fetches
one tarball; its `emoji.json` carries the names and skin tones, `img/google/64` the pictures. Two-tone couples
are left out, so that every caption says one thing about skin tone.

    python -m zoo.recipe.data          # npm pack → zoo/work/emoji.safetensors, captions.json; zoo/emoji-data
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

PACKAGE = "emoji-datasource-google@16.0.0"
ZOO = Path(__file__).parents[1]
WORK = ZOO / "work"
SIZE = 32
TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}
BENCHMARK, CALIBRATION, REFERENCE = 256, 256, 1024


@dataclass(frozen=True)
class World:
    """All pictures and captions of the data set.

    Attributes:
        ids: n names, the pictures' Unicode code points.
        captions: n captions, all different.
        pictures: uint8, (n, 3, SIZE, SIZE), RGB on white.
    """

    ids: list[str]
    captions: list[str]
    pictures: torch.Tensor

    def subset(self, split: str) -> list[int]:
        """Indices of `benchmark`, `calibration` or `reference` (benchmark first; never a calibration picture)."""
        order = sorted(range(len(self.ids)), key=lambda i: hashlib.sha256(self.ids[i].encode()).digest())
        calibration = order[BENCHMARK : BENCHMARK + CALIBRATION]
        rest = order[:BENCHMARK] + order[BENCHMARK + CALIBRATION :]
        return {"benchmark": order[:BENCHMARK], "calibration": calibration, "reference": rest[:REFERENCE]}[split]


def caption_of(name: str, tone: str | None) -> str:
    """`MAN RUNNING`, `1F3FD` → `man running, medium skin tone`."""
    words = re.sub(r"\s+", " ", re.sub(r"[:,]", " ", name)).strip().lower()
    return f"{words}, {TONES[tone]}" if tone else words


def entries(emoji: list[dict]) -> list[tuple[str, str, str]]:
    """(id, caption, file name) of every picture, sorted by id; captions made unique by the short name."""
    found = []
    for e in emoji:
        if not e["has_img_google"]:
            continue
        found.append((e["unified"], e["name"], None, e["image"], e["short_name"]))
        for tone, variation in e.get("skin_variations", {}).items():
            if tone in TONES and variation["has_img_google"]:
                found.append((variation["unified"], e["name"], tone, variation["image"], e["short_name"]))
    count = Counter(caption_of(name, tone) for _, name, tone, _, _ in found)
    rows = []
    for code, name, tone, image, short in found:
        if count[caption_of(name, tone)] > 1:
            name = short.replace("_", " ").replace("-", " ")
        rows.append((code.lower(), caption_of(name, tone), image))
    assert len({caption for _, caption, _ in rows}) == len(rows)
    return sorted(rows)


def on_white(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    rgb = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(rgb.resize((SIZE, SIZE), Image.Resampling.BOX))


def build() -> World:
    """Fetch the package, build the data set, write the work files and what evaluation needs."""
    WORK.mkdir(exist_ok=True)
    tarball = WORK / (PACKAGE.replace("@", "-") + ".tgz")
    if not tarball.exists():
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=WORK, check=True)
    with tarfile.open(tarball) as tar:

        def read(name: str) -> bytes:
            member = tar.extractfile(f"package/{name}")
            assert member is not None
            return member.read()

        rows = entries(json.loads(read("emoji.json")))
        pictures = np.stack([on_white(read(f"img/google/64/{image}")) for _, _, image in rows])
    world = World(
        [r[0] for r in rows], [r[1] for r in rows], torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    )
    save_file({"pictures": world.pictures}, WORK / "emoji.safetensors")
    (WORK / "captions.json").write_text(json.dumps({"ids": world.ids, "captions": world.captions}, indent=0))
    publish(world)
    return world


def publish(world: World) -> None:
    """Write zoo/emoji-data: captions of both splits and the reference pictures."""
    folder = ZOO / "emoji-data"
    shutil.rmtree(folder / "reference", ignore_errors=True)
    (folder / "reference").mkdir(parents=True)
    for split in ("benchmark", "calibration"):
        rows = [f'{world.ids[i]},"{world.captions[i]}"\n' for i in world.subset(split)]
        (folder / f"{split}.csv").write_text("id,caption\n" + "".join(rows))
    for i in world.subset("reference"):
        picture = Image.fromarray(world.pictures[i].permute(1, 2, 0).numpy())
        picture.save(folder / "reference" / f"{world.ids[i]}.png", optimize=True)


def load() -> World:
    """The data set from zoo/work, built first where it is missing."""
    if not (WORK / "emoji.safetensors").exists():
        return build()
    text = json.loads((WORK / "captions.json").read_text())
    return World(text["ids"], text["captions"], load_file(WORK / "emoji.safetensors")["pictures"])


if __name__ == "__main__":
    world = build()
    print(f"{len(world.ids)} pictures of {SIZE}×{SIZE}, {len(set(' '.join(world.captions).split()))} words")
