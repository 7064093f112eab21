"""A model folder checked component by component before any weights load: configurations, files, and shapes.

from_pretrained of diffusers and transformers takes much as it comes: a tokenizer without its vocabulary, a variant
that is not there, weights that are missing (and drawn at random). Here such a folder is refused with the component's
name. What only loading itself can tell is checked in loading.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from obsdiff.errors import SpecError
from obsdiff.pipelines.sources import AGAIN, INDEX, read_record
from obsdiff.pipelines.stored import Shapes, stored_shapes, weight_files


@contextmanager
def explained(component: str, folder: Path, file: Path | None = None) -> Iterator[None]:
    """Turn what a library raises in the block into one SpecError with the component's name, and silence its reports.

    The libraries read files that anybody may have edited, and raise whatever their code runs into; so only a single
    call of theirs belongs into the block.

    Args:
        file: what may be damaged, if not in the component's folder.
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
            f"check {file or folder / component}, or {AGAIN}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own reports on standard error: what is wrong becomes an error, the rest is noise."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    levels = [log.get_verbosity() for log in logs]
    shown = diffusers_logging.is_progress_bar_enabled()
    for log in logs:
        log.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            diffusers_logging.enable_progress_bar()
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)


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


def check(folder: Path, name: str, cls: Any, variant: str | None, exact: bool = False, weights: bool = True) -> None:
    """Refuse a component that would not load, or would load as something else; no weights are read.

    Args:
        folder: the model's.
        name: the component's folder in it.
        cls: its class.
        variant: as Source.variant.
        exact: whether the variant must be there, and quantised weights are refused: of the denoiser.
        weights: whether they are in this folder.

    Raises:
        SpecError: with the component and the file.
    """
    import transformers

    if not (folder / name).is_dir():
        raise SpecError(f"model: {folder} has no folder {name}, which its {INDEX} lists; {AGAIN}")
    if issubclass(cls, nn.Module):
        if weights:
            check_network(folder, name, cls, variant, exact)
        else:
            check_kind(folder / name, cls, read_record(folder / name / "config.json"))
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
        ignored = "|".join(cls._keys_to_ignore_on_load_unexpected or ["(?!)"])
        unexpected = {key for key in shapes.keys() - wanted.keys() if not re.search(ignored, key)}
        check_names(name, folder, wanted.keys() - shapes.keys(), unexpected)


def check_kind(place: Path, cls: Any, config: Mapping[str, Any]) -> None:
    """Refuse a component's configuration that says it is of another class."""
    described = config.get("_class_name", cls.__name__)
    kind = getattr(getattr(cls, "config_class", None), "model_type", None)
    if described != cls.__name__:
        raise SpecError(
            f"model: {place / 'config.json'} describes {described}, and {INDEX} says {cls.__name__}; {AGAIN}"
        )
    given = config.get("model_type", kind)
    if kind and not (isinstance(given, str) and kind.startswith(given)):
        raise SpecError(
            f"model: {place / 'config.json'} describes {given!r}, and {cls.__name__} needs {kind!r}; {AGAIN}"
        )


def check_names(name: str, folder: Path, missing: Any, unexpected: Any) -> None:
    """Refuse weights that the network needs and does not get (they would be random), or gets and has no place for."""
    for keys, what in ((missing, "missing from its weights"), (unexpected, "left over in its weights")):
        if keys:
            raise SpecError(
                f"model: {name} of {folder}: {len(keys)} tensors are {what}, such as {min(keys)}; its config.json and "
                f"its weights do not belong together; {AGAIN}"
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
