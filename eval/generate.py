"""Pictures of a cell: one PNG a prompt, each from its own seed, in batches, going on where a killed run stopped.

What a picture depends on: weights, caption, noise (of the prompt's id and the seed), sampling. The number of shards and
where a run was killed change no byte of it, because a batch always holds the same prompts. Another batch size changes
rounding: kernels of matrix products differ with the shape, and a pixel may move by one.
"""

import fcntl
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from eval.cells import cell_hash
from eval.shards import MANIFEST, record_of, share
from obsdiff import calibration, models, schedulers
from obsdiff.calibration import batched, noise
from obsdiff.devices import stated_precision
from obsdiff.files import file_hash
from obsdiff.prompts import Prompt, prompts_hash
from obsdiff.spec import Sampling

STAMP = "identity.json"


def identity(checkpoint: dict[str, Any], prompts: Sequence[Prompt], sampling: Sampling, seed: int, family: Any) -> str:
    """Hash of all that defines the pictures: weights, prompts, sampling, seed and the code that draws them."""
    files = (__file__, family.__file__, calibration.__file__, schedulers.__file__)
    code = [sha256(Path(file).read_bytes()).hexdigest() for file in files]
    weights = [checkpoint["base"], checkpoint["weights_sha256"]]
    return cell_hash(
        {"weights": weights, "prompts": prompts_hash(prompts), "sampling": str(sampling), "seed": seed, "code": code}
    )


@stated_precision()
@torch.no_grad()
def generate(
    pipe: Any,
    checkpoint: dict[str, Any],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    folder: Path,
    shard: int = 1,
    shards: int = 1,
) -> None:
    """Write `<prompt id>.png` for every prompt of the shard, then its record with each picture's SHA-256.

    A picture's noise depends on its prompt's id and `seed` alone. Pictures already there are kept when they are of
    this very run, and removed otherwise.

    Args:
        pipe: the pruned pipeline.
        checkpoint: its manifest.
        prompts: of all shards.
        folder: made if missing; of one shard alone the record is its manifest.json.
    """
    family = models.family_of(pipe)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = identity(checkpoint, prompts, sampling, seed, family)
    record = record_of(folder, shard, shards)
    record.parent.mkdir(exist_ok=True)
    record.unlink(missing_ok=True)
    clear(folder, stamp)
    pipe.set_progress_bar_config(disable=True)
    mine = share(batched(len(prompts), sampling.batch_size), shard, shards)
    for rows in tqdm(mine, desc="generating", unit="batch", mininterval=2):
        batch = prompts[rows]
        if all((folder / f"{p.id}.png").is_file() for p in batch):
            continue
        embeds = family.encode(pipe, [p.caption for p in batch], sampling)
        pictures = pipe(**embeds, **sampling.arguments(), generator=noise([p.id for p in batch], seed)).images
        for prompt, picture in zip(batch, pictures, strict=True):
            side = folder / f"{prompt.id}.tmp"
            picture.save(side, format="PNG")
            side.rename(folder / f"{prompt.id}.png")
    digests = {p.id: file_hash(folder / f"{p.id}.png") for rows in mine for p in prompts[rows]}
    record.write_text(json.dumps({"identity": stamp, "pictures": digests}, indent=0))


def clear(folder: Path, stamp: str) -> None:
    """Remove the pictures of another run; of several shards that start together, one does it."""
    with (folder / "identity.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / STAMP).is_file() or json.loads((folder / STAMP).read_text()) != stamp:
            (folder / MANIFEST).unlink(missing_ok=True)
            for stale in folder.glob("*.png"):
                stale.unlink()
            (folder / STAMP).write_text(json.dumps(stamp))
