"""Images of a cell: one PNG per prompt, each from its own seed, in batches, going on where a killed run stopped.

What an image depends on: weights, caption, noise (of the prompt's id and the seed), sampling. The number of shards and
where a run was killed change no byte of it, because a batch always holds the same prompts. Another batch size changes
rounding: kernels of matrix products differ with the shape, and a pixel may move by one.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval.images.manifest import MANIFEST, Entry, ImagesManifest, read_manifest, refuse_nothing
from eval.images.saving import Saver, save
from eval.images.shards import record_of, share
from eval.sweep.cells import cell_hash
from obsdiff import models, onednn, registry
from obsdiff.captions.prompts import Prompt, prompts_hash
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.devices import stated_precision
from obsdiff.errors import SpecError
from obsdiff.pipelines.identity import LIBRARIES, Identity, identity_of
from obsdiff.sampling import Sampling, batched, run_pipeline
from obsdiff.storage.files import DamagedFile, code_identity, made_anew, read_json, write_json
from obsdiff.storage.locks import locked

STAMP = "identity.json"
DONE = "batches"
"""folder of a record per finished batch: its images' hashes, by which a later run knows them to be whole"""


def identity(
    drawn: Identity, checkpoint: Manifest, prompts: Sequence[Prompt], sampling: Sampling, seed: int, family: Any
) -> str:
    """Hash of all that defines the images.

    Args:
        drawn: of the pipeline that draws, its scheduler included; the dense one's, or as it is pruned.
        checkpoint: its manifest.
    """
    code = registry.closure(
        "eval.images.generate", "obsdiff.checkpoints.checkpoint", "obsdiff.pipelines.loading", family.__name__
    )
    return cell_hash(
        {
            "pipeline": drawn,
            "weights": checkpoint.weights_sha256,
            "prompts": prompts_hash(prompts),
            "sampling": str(sampling),
            "seed": seed,
            "code": code_identity(code, (*LIBRARIES, "pillow", "numpy")),
        }
    )


@stated_precision(onednn.SMALL)
@torch.no_grad()
def generate(
    pipe: Any,
    checkpoint: Manifest,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    folder: Path,
    shard: int = 1,
    shards: int = 1,
    drawn: Identity | None = None,
) -> None:
    """Write `<Prompt.file>.png` for every prompt of the shard, then its record with each image's SHA-256 and faults.

    An image's noise depends on its prompt's id and `seed` alone. Batches already drawn are kept when they are of this
    very run and every image is as it was written; else the whole batch is drawn again. Of two jobs that would draw
    the same images the second waits for the first.

    Args:
        pipe: the pruned pipeline.
        checkpoint: its manifest.
        prompts: of all shards.
        folder: made if missing; of one shard alone the record is its manifest.json.
        drawn: the dense pipeline's identity, if it is known; by default it is computed, of the pipeline as it is.

    Raises:
        SpecError: all images of the dense model are black or not finite.
    """
    family = models.family_of(pipe)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = identity(drawn or identity_of(pipe), checkpoint, prompts, sampling, seed, family)
    record = record_of(folder, shard, shards)
    with alone(record.with_suffix(".lock"), folder):
        record.unlink(missing_ok=True)
        clear(folder, stamp)
        mine = [prompts[rows] for rows in share(batched(len(prompts), sampling.batch_size), shard, shards)]
        with Saver() as saver:
            for batch in tqdm(mine, desc="generating", unit="batch", mininterval=2):
                if finished(folder, stamp, batch) is None:
                    pictures, flags = sampled(pipe, family, batch, sampling, seed)
                    saver.give(save_batch, folder, stamp, batch, pictures, flags)
        made = ImagesManifest(stamp, collected(folder, mine))
        if shards == 1 and checkpoint.spec["method"] == "dense":
            refuse_nothing(made, folder)
        made.write(record)


def collected(folder: Path, batches: Sequence[Sequence[Prompt]]) -> dict[str, Entry]:
    """The records of batches as one; SpecError where another run has removed one meanwhile."""
    try:
        return {i: entry for batch in batches for i, entry in read_manifest(done(folder, batch)).pictures.items()}
    except (OSError, DamagedFile) as error:
        raise SpecError(f"images: {error}; another run draws into {folder}, wait for it to end, then rerun") from None


def sampled(
    pipe: Any, family: Any, batch: Sequence[Prompt], sampling: Sampling, seed: int
) -> tuple[np.ndarray, Sequence[bool]]:
    """Images of a batch, (b, h, w, 3) float of 0 to 1, and what the safety checker flags of them."""
    embeds = family.encode(pipe, [p.caption for p in batch], sampling)
    found = run_pipeline(pipe, embeds, sampling, [p.id for p in batch], seed, output="np")
    for key, size in zip(("height", "width"), found.images.shape[1:3], strict=True):
        asked = getattr(sampling, key)
        if asked not in (None, size):
            raise SpecError(f"{key}: asked for {asked}, and the {type(pipe).__name__} draws {size} pixels; give {size}")
    return found.images, getattr(found, "nsfw_content_detected", None) or [False] * len(batch)


def save_batch(folder: Path, stamp: str, batch: Sequence[Prompt], pictures: np.ndarray, flags: Sequence[bool]) -> None:
    rows = zip(batch, pictures, flags, strict=True)
    entries = {prompt.id: save(folder, prompt, picture, bool(flag)) for prompt, picture, flag in rows}
    ImagesManifest(stamp, entries).write(done(folder, batch))


def done(folder: Path, batch: Sequence[Prompt]) -> Path:
    """A batch's record, whatever shard it is in."""
    return folder / DONE / f"{prompts_hash(batch)[:32]}.json"


def finished(folder: Path, stamp: str, batch: Sequence[Prompt]) -> ImagesManifest | None:
    """The record of a batch that was drawn in this run and is whole; says on standard error where it no longer is."""
    path = done(folder, batch)
    try:
        found = read_manifest(path)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        made_anew(path, error)
        return None
    if found.identity != stamp or found.pictures.keys() != {p.id for p in batch}:
        return None
    if (altered := found.altered(folder, batch)) is not None:
        made_anew(*altered)
        return None
    return found


@contextmanager
def alone(lock: Path, folder: Path) -> Iterator[None]:
    """Hold a lock for the block; says on standard error where it has to wait for it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, wait=False))
        except BlockingIOError:
            print(f"{folder}: another job draws these images; waiting for it to end", file=sys.stderr, flush=True)
            stack.enter_context(locked(lock))
        yield


def clear(folder: Path, stamp: str) -> None:
    """Remove the images of another run; of several shards that start together, one does it."""
    with locked(folder / "identity.lock"):
        try:
            if read_json(folder / STAMP) == stamp:
                return
        except FileNotFoundError:
            pass
        except DamagedFile as error:
            made_anew(folder / STAMP, error)
        (folder / MANIFEST).unlink(missing_ok=True)
        for stale in (*folder.glob("*.png"), *(folder / DONE).glob("*.json")):
            stale.unlink()
        write_json(folder / STAMP, stamp)
