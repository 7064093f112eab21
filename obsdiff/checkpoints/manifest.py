"""The manifest of a checkpoint: its format, what every field may hold, and how an edited one is told.

It is the Report of the pruning run and, beside it, `format`, the denoiser's `dtype`, `versions` of libraries, size and
SHA-256 of the weights' file, and `sha256`: the digest of the manifest itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from obsdiff.checkpoints.schema import Schema, closed, schema_of
from obsdiff.errors import CheckpointError, SpecError
from obsdiff.pipelines.identity import ABSENT, PIPELINE
from obsdiff.report import LayerReport, Report, SiteReport
from obsdiff.sampling import Sampling
from obsdiff.source import DTYPES
from obsdiff.spec import PASSING, PruneSpec
from obsdiff.storage.files import DamagedFile, read_json, seal, sealed
from obsdiff.targets import sparsity_of

MANIFEST = "manifest.json"
FORMAT = 3
ADDED: dict[str, Any] = {"convolutions": False, "weights": None, "token_power": 1.0}
"""fields of a spec that came after the first checkpoints of this format → what those were made with"""
VERSIONS = ("obsdiff", "torch", "diffusers", "transformers", "safetensors")
HASH: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
COUNT: Schema = {"type": "integer", "minimum": 0}


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself: the Report of the run that made it, and its files.

    Attributes:
        spec: canonical, the prompts as their hash.
        dtype: the denoiser's.
        versions: of the libraries that wrote it.
        weights_sha256, weights_bytes: of the weights' file.
        sha256: digest of the manifest itself.
    """

    spec: dict[str, Any]
    base: dict[str, str]
    reach: float
    left_dense: dict[str, int]
    layers: list[LayerReport]
    sites: list[SiteReport]
    refitted: list[str]
    packages: list[list[str]]
    seconds: dict[str, float]
    peak_memory_bytes: int
    statistics_bytes: int
    tf32: bool
    sparsity: float
    format: int
    dtype: str
    versions: dict[str, str]
    weights_sha256: str
    weights_bytes: int
    sha256: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Manifest":
        """From the content of a manifest.json that has no problems()."""
        layers = [LayerReport(**layer | {"shape": tuple(layer["shape"])}) for layer in record["layers"]]
        return cls(**{**record, "layers": layers, "sites": [SiteReport.of(site) for site in record["sites"]]})

    def as_dict(self) -> dict[str, Any]:
        """The content of manifest.json."""
        return asdict(self) | {"layers": [asdict(layer) | {"shape": list(layer.shape)} for layer in self.layers]}


@cache
def validator() -> Draft202012Validator:
    """Of all fields: those of Report and PruneSpec by their types, and those that are the manifest's own."""
    told = schema_of(Sampling)
    told["required"].remove("extra")  # older checkpoints of the same format have none
    sampling = {"anyOf": [told, {"type": "object", "maxProperties": 0}]}
    identity = {
        "type": "object",
        "additionalProperties": {"anyOf": [HASH, {"const": ABSENT}]},
        "required": [PIPELINE],
    }
    spec = schema_of(PruneSpec, prompts=HASH, sampling=sampling)["properties"]
    result = closed({key: value for key, value in spec.items() if key not in PASSING})
    result["required"] = [key for key in result["required"] if key not in ADDED]
    report = schema_of(Report, spec=result, base=identity)
    report["properties"]["sites"]["items"]["required"].remove("structure")  # nor this
    own = {
        "format": {"const": FORMAT},
        "sparsity": {"type": "number", "minimum": 0, "maximum": 1},
        "dtype": {"enum": [*DTYPES, "float64"]},
        "versions": closed({name: {"type": "string"} for name in VERSIONS}),
        "weights_sha256": HASH,
        "weights_bytes": COUNT,
        "sha256": HASH,
    }
    return Draft202012Validator(closed(report["properties"] | own))


def manifest_of(report: Report, dtype: str, weights_sha256: str, weights_bytes: int) -> Manifest:
    """The manifest of a run, with its digest."""
    record = seal(
        report.as_dict()
        | {
            "format": FORMAT,
            "dtype": dtype,
            "versions": {name: version(name) for name in VERSIONS},
            "weights_sha256": weights_sha256,
            "weights_bytes": weights_bytes,
        }
    )
    return Manifest.of(record)


def read_manifest(folder: str | Path) -> Manifest:
    """A checkpoint's manifest, checked field by field and against its own digest.

    Raises:
        CheckpointError: it is missing, damaged, edited, of another format, or does not agree with itself.
    """
    path = Path(folder) / MANIFEST
    try:
        record = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        message = f"{folder}: no {MANIFEST}; it is not a pruned checkpoint, or its writing was interrupted"
        raise CheckpointError(message) from None
    except DamagedFile as error:
        raise CheckpointError(f"{error}; it is not the manifest of a pruned checkpoint any more, prune again") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(record, dict):
        raise CheckpointError(f"{path}: not the manifest of a pruned checkpoint, but a {type(record).__name__}")
    for problem in problems(record):
        raise CheckpointError(f"{path}: {problem}")
    return Manifest.of(current(record))


def current(record: dict[str, Any]) -> dict[str, Any]:
    """A manifest with all fields, those of ADDED too, and the digest that it then has."""
    spec = ADDED | record["spec"]
    if spec["sensitivity"] not in ("tokens", "both"):
        spec["token_power"] = PruneSpec.token_power
    return record if spec == record["spec"] else seal(record | {"spec": spec})


def problems(record: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a manifest, the most telling first; nothing where it is as it was written."""
    number = record.get("format", 1 if {"spec", "base", "weights_sha256"} <= record.keys() else None)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        yield "not the manifest of a pruned checkpoint (it has no format number); give the folder that prune wrote"
    elif number > FORMAT:
        yield f"written by a newer obsdiff (format {number}, and this one reads {FORMAT}); upgrade obsdiff"
    elif number < FORMAT:
        yield f"written by an older obsdiff (format {number}, and this one reads {FORMAT}); prune again"
    for error in validator().iter_errors(record):
        message = error.message if len(error.message) < 200 else f"not a valid {error.validator} of the format"
        place = error.json_path.removeprefix("$").removeprefix(".") or "manifest"
        yield f"{place}: {message}; the file was edited, restore it or prune again"
    try:
        spec = spec_of(record)
    except SpecError as error:
        yield f"spec.{error}; the file was edited, restore it or prune again"
        return
    for message in (*amount_problems(record, spec), *site_problems(record, spec)):
        yield f"{message}; the file was edited, restore it or prune again"
    if not sealed(record):
        yield "edited after it was written (its digest differs); restore it or prune again"


def spec_of(record: dict[str, Any]) -> PruneSpec:
    """The spec of a manifest, without the prompts, of which it holds the hash.

    Raises:
        SpecError: a value is not allowed.
    """
    told = record["spec"]
    several = {key: tuple(told[key]) for key in ("exclude", "alphas")}
    return PruneSpec(**told | several | {"prompts": (), "sampling": Sampling(**told["sampling"])})


def amount_problems(record: dict[str, Any], spec: PruneSpec) -> Iterator[str]:
    """Where layers and counts are not what the spec asks for."""
    layers = record["layers"]
    names = [layer["name"] for layer in layers]
    wanted = bool(spec.traits.prunes and (spec.amount > 0 or spec.layer_sparsity))
    if wanted != bool(layers):
        yield f"layers: {len(layers)} layers, and method {spec.method!r} at sparsity {spec.amount:g} prunes " + (
            "some" if wanted else "none"
        )
    if len(set(names)) < len(names):
        yield "layers: a layer is there twice"
    calibrated = [name for package in record["packages"] for name in package]
    structured = spec.resolved.structured
    same = set(calibrated) <= set(names) if structured else calibrated == names
    if not same or len(set(calibrated)) < len(calibrated):
        yield "packages: not the layers that were pruned"
    even = spec.allocation == "uniform"
    for layer in layers:
        size, name = layer["shape"][0] * layer["shape"][1], layer["name"]
        if layer["removed"] > size:
            yield f"layers: {name!r} has {size} weights, and {layer['removed']} of them removed"
        elif even and not structured and abs(layer["removed"] - sparsity_of([name], spec) * size) > 1:
            yield f"layers: {name!r} lost {layer['removed']} of {size} weights, which is not the sparsity of the spec"
    if set(record["refitted"]) & set(names) or (record["refitted"] and not spec.refit):
        yield "refitted: a layer that the spec does not refit, or that was pruned"
    total = sum(layer["shape"][0] * layer["shape"][1] for layer in layers)
    if abs(record["sparsity"] * total - sum(layer["removed"] for layer in layers)) > 0.5:
        yield f"sparsity: {record['sparsity']:g} is not that of the layers"


def site_problems(record: dict[str, Any], spec: PruneSpec) -> Iterator[str]:
    """Where heads and neurons that stay are impossible, or not as many as the spec asks for."""
    names = {layer["name"] for layer in record["layers"]}
    if bool(record["sites"]) != (spec.resolved.structured and bool(names)):
        yield f"sites: {len(record['sites'])} of them, which pattern {spec.pattern!r} cannot have"
    found = [{key: site.get(key) for key in ("layer", "kind", "structure")} for site in record["sites"]]
    if any(site in found[:place] for place, site in enumerate(found)):
        yield "sites: one is there twice"
    for site in record["sites"]:
        kept, groups, where = site["kept"], site["groups"], f"sites: {site['layer']!r}"
        if site["layer"] not in names or site["kind"] not in spec.resolved.traits.removes:
            yield f"{where}, {site['kind']!r} are not among what was pruned"
        if not kept or kept != sorted(set(kept)) or kept[-1] >= groups:
            yield f"{where} keeps {kept[:8]} of {groups} groups; they must ascend from 0 to {groups - 1} at most"
        asked = groups - round(groups * spec.amount)
        if spec.allocation == "uniform" and not spec.layer_sparsity and len(kept) != asked:
            yield f"{where} keeps {len(kept)} of {groups} {site['kind']}, and the spec asks for {asked}"
