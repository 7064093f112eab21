"""Whether a model on this machine has all that opening it needs: told from its files, before any weights load."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from obsdiff import models
from obsdiff.errors import SpecError
from obsdiff.pipelines import families
from obsdiff.pipelines.single_file import held
from obsdiff.pipelines.sources import AGAIN, INDEX, component_files, folder_of, read_record
from obsdiff.pipelines.stored import header, shards
from obsdiff.source import Source
from obsdiff.typed import require

WEIGHTS = (".safetensors", ".bin")


def require_model(source: Source, family: str | None = None) -> None:
    """Check class, components and files of a model.

    A hub id that is not here is refused unless the source may download it.

    Args:
        family: the one that it must belong to, a file of obsdiff/models or AUTO for any.

    Raises:
        SpecError: with what is missing or damaged, and the next step.
    """
    folder = folder_of(source)
    if folder is None:
        require_place(source)
        return
    files = component_files(source)
    index = read_record(folder / INDEX)
    if family is not None:
        require_class(index, family, source)
    known = sorted(name for name in index if not name.startswith("_"))
    for name in source.without:
        require(name in known, "without", name, f"a component of the pipeline ({', '.join(known)})")
    inside = held(source, families.traits(source, models.AUTO).denoiser, known)
    for name in known:
        entry = index[name]
        if isinstance(entry, list) and entry and entry[0] is not None and name not in source.without:
            require_component(name, files.get(name, []), source, weights=name not in inside)


def require_place(source: Source) -> None:
    """Raise SpecError unless the model, which is not on this machine, is one that may be downloaded."""
    name = source.model
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).exists():
        raise SpecError(f"model: {name!r} is neither a diffusers folder nor a hub id (owner/name)")
    if source.local_files_only:
        revision = f" --revision {source.revision}" if source.revision else ""
        raise SpecError(
            f"model: {name!r} is not on this machine; run `hf download {name}{revision}`, give a local folder, or say "
            "local_files_only: false"
        )


def require_class(index: Mapping[str, Any], family: str, source: Source) -> None:
    """Raise SpecError where the pipeline's class is not of the family; its subclasses are."""
    name, found = index.get("_class_name"), families.named(source, models.AUTO)
    ok = family in (found, models.AUTO)
    require(ok, "family", family, f"that of {source.model!r}, which holds a {name}; give family: {found}")


def require_component(name: str, files: list[Path], source: Source, weights: bool) -> None:
    """Raise SpecError unless a component's configuration can be read and, if asked, its weights are all there."""
    if not files:
        what = f"{source.model!r} has no files of its component {name}"
        raise SpecError(f"model: {what}; {AGAIN}, or leave it out with `without`")
    for path in files:
        if not path.is_file():
            raise SpecError(f"model: {path} is a broken link; {AGAIN}")
        if path.suffix == ".json" and path.name.endswith(("config.json", ".index.json")):
            read_record(path)
    if not weights or not any(path.name == "config.json" for path in files):
        return
    if not any(path.suffix in WEIGHTS for path in files):
        raise SpecError(f"model: {files[0].parent} holds no weights; {AGAIN}")
    for path in files:
        if path.name.endswith(".index.json"):
            shards(path)
        elif path.suffix == ".safetensors":
            header(path)


def require_layers(source: Source, denoiser: str, patterns: Iterable[str]) -> None:
    """Raise SpecError where a layer-name pattern matches no layer of the denoiser, if its weights are here.

    A pattern that matches layers which are never pruned alone is refused later, by the run itself.

    Args:
        denoiser: the component.
        patterns: as `exclude` and the keys of `layer_sparsity`.
    """
    files = component_files(source).get(denoiser, [])
    tensors = {name for path in files if path.suffix == ".safetensors" for name in header(path)}
    layers = sorted(name.removesuffix(".weight") for name in tensors if name.endswith(".weight"))
    for pattern in patterns if layers else ():
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise SpecError(f"{pattern!r} matches no layer of {source.model!r}; there are {layers[0]} … {layers[-1]}")
