"""A cell's images drawn by several jobs: which prompts a job draws, and their records made one. No torch in here.

A shard is a run of whole batches, so that every image is drawn in the same batch whatever the number of shards.
"""

from collections.abc import Sequence
from pathlib import Path

from eval.images.manifest import MANIFEST, ImagesManifest, read_manifest
from obsdiff.captions.prompts import Prompt
from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile
from obsdiff.typed import require


def share(batches: Sequence[slice], shard: int, shards: int) -> Sequence[slice]:
    """The batches of one shard, counted from 1; of too many shards some are empty."""
    require(1 <= shard <= shards, "shard", shard, f"in [1, {shards}]")
    count = len(batches)
    return batches[count * (shard - 1) // shards : count * shard // shards]


def record_of(folder: Path, shard: int, shards: int) -> Path:
    """`shards/2of4.json` in the images' folder; the manifest itself where one job draws all."""
    return folder / MANIFEST if shards == 1 else folder / "shards" / f"{shard}of{shards}.json"


def merge(folder: Path, prompts: Sequence[Prompt], shards: int) -> None:
    """Write the manifest that one job would have written.

    Raises:
        SpecError: a shard's record is missing or damaged, the shards are of different runs, or an image is in none.
    """
    again = f"remove {folder / 'shards'} and rerun"
    try:
        records = [read_manifest(record_of(folder, i + 1, shards)) for i in range(shards)]
    except (OSError, DamagedFile) as error:
        raise SpecError(f"shards: {error}; {again}") from None
    pictures = {identity: entry for record in records for identity, entry in record.pictures.items()}
    identities = {record.identity for record in records}
    if len(identities) > 1 or pictures.keys() != {p.id for p in prompts}:
        raise SpecError(f"shards: those in {folder / 'shards'} are not of one run; remove that folder and rerun")
    ImagesManifest(identities.pop(), {p.id: pictures[p.id] for p in prompts}).write(folder / MANIFEST)
