"""A model folder checked component by component before any weights load: configurations, files, and shapes.

from_pretrained of diffusers and transformers takes much as it comes: a tokenizer without its vocabulary, a variant
that is not there, weights that are missing (and drawn at random). Here such a folder is refused with the component's
name. What only loading itself can tell is checked in loading.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from obsdiff.errors import SpecError
from obsdiff.files import DamagedFile, read_json
from obsdiff.sources import INDEX

Shapes = dict[str, tuple[int, ...]]
LFS = b"version https://git-lfs"
"""how the small text begins that stands for a large file which Git LFS has not fetched"""
AGAIN = "download or save the model again"


@contextmanager
def explained(component: str, folder: Path) -> Iterator[None]:
    """Turn what a library raises in the block into one SpecError with the component's name, and silence its reports.

    The libraries read files that anybody may have edited, and raise whatever their code runs into; so only a single
    call of theirs belongs into the block.
    """
    try:
        with quiet():
            yield
    except SpecError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise SpecError(
            f"model: {component} of {folder} cannot be loaded ({type(error).__name__}: {lines[0][:300]}); "
            f"check {folder / component}, or {AGAIN}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own reports on standard error: what is wrong becomes an error, the rest is noise."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping; SpecError names the file otherwise."""
    try:
        marked = path.read_bytes()[:3] == b"\xef\xbb\xbf"
        record = read_json(path)
    except FileNotFoundError:
        what = "is a link to a file that is not there" if path.is_symlink() else "is missing"
        raise SpecError(f"model: {path} {what}; {AGAIN}") from None
    except OSError as error:
        raise SpecError(f"model: {path} cannot be read ({error.strerror}); {AGAIN}") from None
    except DamagedFile as error:
        raise SpecError(f"model: {error}; {AGAIN}") from None
    if marked:
        raise SpecError(f"model: {path} begins with a byte order mark; save it as UTF-8 without one")
    if not isinstance(record, dict):
        raise SpecError(f"model: {path} is a {type(record).__name__}, not a mapping; {AGAIN}")
    return record


def components(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Component → library and class, those that the index leaves out (null) excluded.

    Args:
        index: content of model_index.json.

    Raises:
        SpecError: an entry is not a pair of names.
    """
    found = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        if len(entry) != 2 or {type(part) for part in entry} not in ({str}, {type(None)}):
            raise SpecError(f"model: {INDEX} says {name}: {json.dumps(entry)}, not a library and a class; {AGAIN}")
        if entry[0] is not None:
            found[name] = (entry[0], entry[1])
    return found


def class_of(name: str, library: str, cls: str) -> Any:
    """A component's class, from diffusers, transformers, or one of diffusers' pipeline folders (safety checkers)."""
    import diffusers
    import transformers

    home = {"diffusers": diffusers, "transformers": transformers}.get(library)
    home = home or getattr(diffusers.pipelines, library, None)
    if home is None:
        raise SpecError(
            f"model: {INDEX} takes {name} from {library!r}, which is neither diffusers nor transformers; give a model "
            "without code of its own"
        )
    found = getattr(home, cls, None)
    if not isinstance(found, type):
        release = getattr(home, "__version__", diffusers.__version__)
        raise SpecError(
            f"model: {name} is a {cls}, which {library} {release} does not have; install the release that saved the "
            f"model, or leave the component out with without: {name} if the pipeline can do without it"
        )
    return found


def check(folder: Path, name: str, cls: Any, variant: str | None, exact: bool = False) -> None:
    """Refuse a component that would not load, or would load as something else; no weights are read.

    Args:
        folder: the model's.
        name: the component's folder in it.
        cls: its class.
        variant: as Source.variant.
        exact: whether the variant must be there, and quantised weights are refused: of the denoiser.

    Raises:
        SpecError: with the component and the file.
    """
    import transformers

    if not (folder / name).is_dir():
        raise SpecError(f"model: {folder} has no folder {name}, which its {INDEX} lists; {AGAIN}")
    if issubclass(cls, nn.Module):
        check_network(folder, name, cls, variant, exact)
    elif issubclass(cls, transformers.PreTrainedTokenizerBase):
        check_tokenizer(folder / name, cls)
    elif file := getattr(cls, "config_name", None):
        read_record(folder / name / file)


def check_tokenizer(folder: Path, cls: Any) -> None:
    """Its configuration is there, and one complete set of vocabulary files: a missing one would be made up."""
    read_record(folder / "tokenizer_config.json")
    files = dict(cls.vocab_files_names)
    whole = files.pop("tokenizer_file", None)
    sets = [[file] for file in (whole,) if file] + ([list(files.values())] if files else [])
    missing = [[file for file in files if not (folder / file).is_file()] for files in sets]
    if sets and all(missing):
        wanted = " or ".join(" and ".join(files) for files in sets)
        raise SpecError(f"model: {folder} has no vocabulary: {wanted} belongs there; {AGAIN}")
    for file in {file for files in sets for file in files if file.endswith(".json")}:
        if (folder / file).is_file():
            read_record(folder / file)


def check_network(folder: Path, name: str, cls: Any, variant: str | None, exact: bool) -> None:
    """Configuration and weights belong together, and to the class."""
    place = folder / name
    config = read_record(place / "config.json")
    check_kind(place, cls, config)
    if "quantization_config" in config:
        if exact:
            raise SpecError(f"model: {name} of {folder} is quantised, which leaves nothing to prune; give the original")
        return
    shapes = stored_shapes(weight_files(place, is_diffusers(cls), variant, exact))
    with explained(name, folder), torch.device("meta"):
        network = empty(cls, place, config)
    wanted: Shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    for key in wanted.keys() & shapes.keys():
        if wanted[key] != shapes[key]:
            raise SpecError(
                f"model: {name}.{key} is {shapes[key]} in the weights of {folder} and {wanted[key]} by its "
                f"config.json; {AGAIN}"
            )
    # transformers renames old keys, and so does diffusers in the attention of old autoencoders
    renamed = any(getattr(module, "_from_deprecated_attn_block", False) for module in network.modules())
    if shapes and is_diffusers(cls) and not renamed:
        check_names(name, folder, wanted.keys() - shapes.keys(), shapes.keys() - wanted.keys())


def check_kind(place: Path, cls: Any, config: Mapping[str, Any]) -> None:
    """Refuse a component's configuration that says it is of another class."""
    described = config.get("_class_name", cls.__name__)
    kind = getattr(getattr(cls, "config_class", None), "model_type", None)
    if described != cls.__name__:
        raise SpecError(f"model: {place / 'config.json'} is of a {described}, and {INDEX} says {cls.__name__}; {AGAIN}")
    given = config.get("model_type", kind)
    if kind and not (isinstance(given, str) and kind.startswith(given)):
        raise SpecError(f"model: {place / 'config.json'} is of a {given}, and {cls.__name__} needs a {kind}; {AGAIN}")


def check_names(name: str, folder: Path, missing: Any, unexpected: Any) -> None:
    """Refuse weights that the network needs and does not get (they would be random), or gets and has no place for."""
    for keys, what in ((missing, "are missing from its weights"), (unexpected, "of its weights have no place in it")):
        if keys:
            raise SpecError(
                f"model: {name} of {folder}: {len(keys)} tensors {what} ({min(keys)}, …); its config.json and its "
                f"weights do not belong together; {AGAIN}"
            )


def is_diffusers(cls: Any) -> bool:
    from diffusers import ModelMixin

    return issubclass(cls, ModelMixin)


def empty(cls: Any, place: Path, config: Mapping[str, Any]) -> nn.Module:
    """The network of a configuration, on the device of the context."""
    made: nn.Module
    if is_diffusers(cls):
        made = cls.from_config(dict(config))
    else:
        made = cls(cls.config_class.from_pretrained(place, local_files_only=True))
    return made


def weight_files(place: Path, diffusers: bool, variant: str | None, exact: bool) -> list[Path]:
    """The safetensors files that from_pretrained will read; none where only files of another format are there.

    Args:
        diffusers: whose names they have: diffusers' or transformers'.

    Raises:
        SpecError: none at all, or not of this variant, or a shard is missing.
    """
    stem = "diffusion_pytorch_model" if diffusers else "model"
    there = sorted(path.name for path in place.iterdir() if path.suffix in (".safetensors", ".bin"))
    if variant and not has_variant(place, variant):
        if exact:
            raise SpecError(
                f"variant: {variant!r} is not among the weights of {place} ({', '.join(there) or 'none'}); give "
                "another one, or leave it out"
            )
        variant = None
    end = f".{variant}" if variant else ""
    single, index = place / f"{stem}{end}.safetensors", place / f"{stem}.safetensors.index{end}.json"
    first = (index, single) if diffusers else (single, index)
    if found := next((path for path in first if path.is_file() or path.is_symlink()), None):
        return shards(index) if found == index else [single]
    older = "diffusion_pytorch_model" if diffusers else "pytorch_model"
    if any(file.startswith(f"{older}{end}") and file.endswith(".bin") for file in there):
        return []
    raise SpecError(
        f"model: {place} has no weights ({single.name} belongs there; there are {', '.join(there) or 'none'}); "
        f"{AGAIN}, or give its variant"
    )


def has_variant(place: Path, variant: str) -> bool:
    """Whether a component has weights of a variant; others than the denoiser are then loaded without it."""
    parts = (part for path in place.iterdir() for part in path.name.split(".")[1:-1])
    return any(part == variant or part.startswith(f"{variant}-") for part in parts)


def shards(index: Path) -> list[Path]:
    """The files of a sharded network; SpecError where the index is damaged or one is missing."""
    names = read_record(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise SpecError(f"model: {index} does not say which file holds which weights; {AGAIN}")
    files = [index.parent / file for file in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SpecError(f"model: {index.parent} lacks {', '.join(missing)}, which {index.name} lists; {AGAIN}")
    return files


def stored_shapes(files: list[Path]) -> Shapes:
    """The shapes of all tensors of safetensors files, from their headers; a file that was cut is refused."""
    from safetensors import SafetensorError, safe_open

    shapes: Shapes = {}
    for path in files:
        try:
            with path.open("rb") as raw:
                pointer = raw.read(len(LFS)) == LFS
            if pointer:
                raise SpecError(f"model: {path} is a pointer of Git LFS, not the weights; run `git lfs pull`")
            with safe_open(path, "pt") as file:
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            what = "is a link to a file that is not there" if path.is_symlink() and not path.exists() else str(error)
            raise SpecError(f"model: {path} is missing, cut or not a safetensors file ({what}); {AGAIN}") from None
    return shapes
