"""Which images a run drew: their files, hashes and faults, as a record on disk that later jobs hold them to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from obsdiff.captions.prompts import Prompt
from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile, file_hash, read_json, write_json

MANIFEST = "manifest.json"
FORMAT = 1
FAULTS = ("black", "flat", "non_finite", "flagged")
"""of an image: without any light, of one other colour, with NaN or infinity before it was rounded, flagged by the
pipeline's safety checker"""
HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
FILE = {"type": "string", "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9._-]*\.png$"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["format", "identity", "pictures"],
    "additionalProperties": False,
    "properties": {
        "format": {"const": FORMAT},
        "identity": {"type": "string"},
        "pictures": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["file", "sha256"],
                "additionalProperties": False,
                "properties": {
                    "file": FILE,
                    "sha256": HASH,
                    "faults": {"type": "array", "items": {"enum": list(FAULTS)}},
                },
            },
        },
    },
}
Entry = dict[str, Any]
"""file, sha256 and, where it has any, faults of one image"""


@dataclass(frozen=True)
class ImagesManifest:
    """The images of one run, by prompt id."""

    identity: str
    pictures: Mapping[str, Entry]

    def write(self, path: Path) -> None:
        """Write the whole record or nothing."""
        write_json(path, {"format": FORMAT, "identity": self.identity, "pictures": dict(self.pictures)}, indent=0)

    def paths(self, folder: Path, prompts: Iterable[Prompt]) -> list[Path]:
        """The images of prompts, in their order."""
        return [folder / self.pictures[prompt.id]["file"] for prompt in prompts]

    def faults(self) -> dict[str, int]:
        """How many images there are and how many have each of FAULTS; one image may have several."""
        found = Counter(fault for entry in self.pictures.values() for fault in entry.get("faults", ()))
        return {"count": len(self.pictures)} | {fault: found[fault] for fault in FAULTS}

    def altered(self, folder: Path, prompts: Iterable[Prompt]) -> tuple[Path, str] | None:
        """The first of some prompts' images that is not as it was drawn, and why; None where all are."""
        for prompt in prompts:
            entry = self.pictures[prompt.id]
            path = folder / entry["file"]
            try:
                if file_hash(path) != entry["sha256"]:
                    return path, "its hash is not the recorded one"
            except OSError as error:
                return path, f"it cannot be read: {error.strerror}"
        return None


def read_manifest(path: Path) -> ImagesManifest:
    """A record as ImagesManifest.write() made it.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is none, is cut or edited, or of another version.
    """
    record = read_json(path)
    error = best_match(Draft202012Validator(SCHEMA).iter_errors(record))
    if isinstance(error, ValidationError):
        key = ".".join(map(str, error.absolute_path))
        raise DamagedFile(f"{path}: not a manifest of images, format {FORMAT} ({key and f'{key}: '}{error.message})")
    return ImagesManifest(record["identity"], record["pictures"])


def drawn(folder: Path, prompts: Sequence[Prompt]) -> ImagesManifest:
    """The manifest of a folder of generated images, with every image there and as it was drawn.

    Raises:
        SpecError: the manifest is damaged or of other prompts, an image is missing, or is not the one that was drawn.
    """
    path = folder / MANIFEST
    again = f"remove {path} and rerun"
    try:
        manifest = read_manifest(path)
    except (OSError, DamagedFile) as error:
        raise SpecError(f"images: {error}; {again}") from None
    asked = {prompt.id for prompt in prompts}
    missing, extra = asked - manifest.pictures.keys(), manifest.pictures.keys() - asked
    for names, what in ((missing, "has no image of"), (extra, "is of other prompts: it has an image of")):
        if names:
            more = f" and {len(names) - 1} more" * (len(names) > 1)
            raise SpecError(f"images: {path} {what} {min(names)!r:.100}{more}; {again}")
    if (found := manifest.altered(folder, prompts)) is not None:
        raise SpecError(f"images: {found[0]} is not the one that was drawn ({found[1]}); {again}")
    known = {entry["file"] for entry in manifest.pictures.values()}
    strange = sorted(p.name for p in folder.glob("*.png") if p.name not in known and not p.name.startswith("."))
    if strange:
        more = f" and {len(strange) - 1} more" * (len(strange) > 1)
        raise SpecError(f"images: {folder / strange[0]}{more} was not drawn by this run; take it out of there")
    return manifest


def refuse_nothing(dense: ImagesManifest, folder: Path) -> None:
    """Raise SpecError where the dense model draws nothing: no comparison with it would mean anything."""
    entries = dense.pictures.values()
    if not entries or not all({"black", "non_finite"} & set(entry.get("faults", ())) for entry in entries):
        return
    flagged = dense.faults()["flagged"]
    raise SpecError(
        f"images: all {len(entries)} of the dense model in {folder} are black or not finite ({flagged} flagged by "
        "its safety checker); give source.dtype: bfloat16 or float32, because many VAEs overflow in float16 (SDXL has "
        "madebyollin/sdxl-vae-fp16-fix), and leave a safety checker out by source.without: [safety_checker]"
    )
