"""Where the files of a diffusers model are on this machine, component by component. No torch in here."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from obsdiff.errors import SpecError
from obsdiff.source import Source
from obsdiff.storage.folders import INDEX as INDEX

FACTS = Path(__file__).parent / "facts"
"""configurations and numbers of parameters of published checkpoints"""
AGAIN = "download or save the model again"
SINGLE_FILE = "single_file"
"""in the place of a component: the file that has weights of several"""


def folder_of(source: Source) -> Path | None:
    """The model's folder: the local one, or the snapshot of a hub id in the hub's cache; None where it is not here."""
    if Path(source.model).is_dir():
        return Path(source.model)
    if source.model.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source.model, INDEX, revision=source.revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def configured(source: Source) -> Path:
    """The model's folder, of which configurations and tokenizers are wanted; SpecError where it is not here."""
    if (folder := folder_of(source)) is None:
        raise SpecError(
            f"model: {source.model!r} is not on this machine; its configurations and tokenizers are enough: run "
            f"`hf download {source.model} --exclude '*.safetensors' '*.bin'`"
        )
    return folder


def shipped(source: Source) -> dict[str, dict[str, Any]]:
    """What obsdiff/pipelines/facts has of a checkpoint: its JSON files by name, and `parameters` by component."""
    path = FACTS / f"{source.model.replace('/', '--')}.json"
    return read_record(path) if path.is_file() and not Path(source.model).is_dir() else {}


def record(source: Source, file: str) -> dict[str, Any]:
    """A configuration, of the model's folder or of the shipped facts; {} where neither has it."""
    folder = folder_of(source)
    if folder is not None and (folder / file).is_file():
        return read_record(folder / file)
    return shipped(source).get(file, {})


def component_files(source: Source) -> dict[str, list[Path]]:
    """Every file that can change a pixel, by component; model_index.json under ''.

    A component is a key of model_index.json whose folder is there; all files of that folder count, links followed,
    but hidden ones. Components of `source.without` and files beside the components' folders (a README, images) are
    left out. Source.single_file stands under SINGLE_FILE.

    Raises:
        SpecError: the folder is here and its model_index.json is missing or damaged.
    """
    folder = folder_of(source)
    if folder is None:
        return {}
    index = folder / INDEX
    if not index.is_file():
        raise SpecError(f"model: {source.model!r} has no {INDEX}; give the folder that save_pretrained wrote")
    record = read_record(index)
    found = {"": [index]}
    for name in record:
        if not name.startswith("_") and name not in source.without and (folder / name).is_dir():
            found[name] = sorted(files_below(folder / name))
    if source.single_file:
        found[SINGLE_FILE] = [Path(source.single_file)]
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones; links to folders are followed, each folder once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file of a model, which holds a mapping; diffusers writes infinite numbers there too.

    Raises:
        SpecError: it is missing, cannot be read, or begins with a byte order mark, which the libraries do not read.
    """
    try:
        data = path.read_bytes()
        record = json.loads(data.decode(), parse_constant=constant)
    except FileNotFoundError:
        what = "is a link to a file that is not there" if path.is_symlink() else "is missing"
        raise SpecError(f"model: {path} {what}; {AGAIN}") from None
    except OSError as error:
        raise SpecError(f"model: {path} cannot be read ({error.strerror}); {AGAIN}") from None
    except (ValueError, RecursionError) as error:
        if data.startswith(b"\xef\xbb\xbf"):
            raise SpecError(f"model: {path} begins with a byte order mark; save it as UTF-8 without one") from None
        raise SpecError(f"model: {path} is not JSON ({error if data else 'it is empty'}); {AGAIN}") from None
    if not isinstance(record, dict):
        raise SpecError(f"model: {path} holds {json.dumps(record)[:60]}, not a mapping; {AGAIN}")
    return record


def constant(text: str) -> float:
    """Infinity, but not NaN, which no configuration means."""
    if text == "NaN":
        raise ValueError("NaN is not a value")
    return float(text)
