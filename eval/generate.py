"""Pictures of a cell: one PNG a prompt, each from its own seed, in batches, going on where a killed run stopped."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from eval.cells import cell_hash
from obsdiff import models
from obsdiff.calibration import batched, noise
from obsdiff.checkpoint import file_hash
from obsdiff.prompts import Prompt
from obsdiff.spec import Sampling

MANIFEST, STAMP = "manifest.json", "identity.json"


def identity(checkpoint: dict[str, Any], prompts: Sequence[Prompt], sampling: Sampling, seed: int, family: Any) -> str:
    """Hash of all that defines the pictures: weights, prompts, sampling, seed and the code that draws them."""
    code = [sha256(Path(f).read_bytes()).hexdigest() for f in (__file__, family.__file__)]
    weights = [checkpoint["base"], checkpoint["weights_sha256"]]
    return cell_hash(
        {"weights": weights, "prompts": [p.id for p in prompts], "sampling": str(sampling), "seed": seed, "code": code}
    )


@torch.no_grad()
def generate(
    pipe: Any, checkpoint: dict[str, Any], prompts: Sequence[Prompt], sampling: Sampling, seed: int, folder: Path
) -> None:
    """Write `<prompt id>.png` for every prompt, then manifest.json with each picture's SHA-256.

    A picture's noise depends on its prompt's id and `seed` alone. Pictures already there are kept when they are of
    this very run, and removed otherwise.

    Args:
        pipe: the pruned pipeline.
        checkpoint: its manifest.
        folder: made if missing.
    """
    family = models.family_of(pipe)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = identity(checkpoint, prompts, sampling, seed, family)
    (folder / MANIFEST).unlink(missing_ok=True)
    if not (folder / STAMP).is_file() or json.loads((folder / STAMP).read_text()) != stamp:
        for stale in folder.glob("*.png"):
            stale.unlink()
        (folder / STAMP).write_text(json.dumps(stamp))
    pipe.set_progress_bar_config(disable=True)
    for rows in tqdm(batched(len(prompts), sampling.batch_size), desc="generating", unit="batch", mininterval=2):
        batch = prompts[rows]
        if all((folder / f"{p.id}.png").is_file() for p in batch):
            continue
        embeds = family.encode(pipe, [p.caption for p in batch], sampling)
        pictures = pipe(**embeds, **sampling.arguments(), generator=noise([p.id for p in batch], seed)).images
        for prompt, picture in zip(batch, pictures, strict=True):
            side = folder / f"{prompt.id}.tmp"
            picture.save(side, format="PNG")
            side.rename(folder / f"{prompt.id}.png")
    record = {"identity": stamp, "pictures": {p.id: file_hash(folder / f"{p.id}.png") for p in prompts}}
    (folder / MANIFEST).write_text(json.dumps(record, indent=0))
