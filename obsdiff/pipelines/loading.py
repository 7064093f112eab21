"""Opening a diffusers pipeline: hub id or folder, revision, variant, dtype, device, offload."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from obsdiff import devices
from obsdiff.errors import SpecError
from obsdiff.pipelines import components, families, samplers, single_file, sizes, stored
from obsdiff.pipelines.sources import AGAIN, INDEX, configured, read_record, shipped
from obsdiff.sampling import Sampling, arguments_of
from obsdiff.source import Source
from obsdiff.typed import require


def load_pipeline(source: Source, sampling: Sampling | None = None) -> Any:
    """Load a pipeline in evaluation mode, where its source says.

    Args and errors: as open_pipeline().
    """
    pipe = open_pipeline(source, sampling)
    place(pipe, source)
    return pipe


def place(pipe: Any, source: Source) -> None:
    """Put an opened pipeline on its device, or give it diffusers' offload hooks.

    Under sequential ones its weights cannot be changed any more.

    Raises:
        SpecError: the device has not enough memory for it.
    """
    import torch

    try:
        if source.offload == "model":
            pipe.enable_model_cpu_offload(device=source.device)
        elif source.offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=source.device)
        else:
            pipe.to(source.device)
    except torch.OutOfMemoryError:
        raise SpecError(
            f"offload: {source.offload!r} needs more memory than {source.device} has; give offload: model (`obsdiff "
            "plan` says what fits)"
        ) from None


def open_pipeline(source: Source, sampling: Sampling | None = None, own_scheduler: bool = False) -> Any:
    """Load a pipeline in evaluation mode into main memory, component by component.

    Args:
        sampling: the pipeline gets its scheduler; its own by default.
        own_scheduler: it keeps its own one; whether it can use the sampling's is checked all the same.

    Raises:
        SpecError: before any weights load: the device does not exist; there is no such folder or checkpoint, or a gated
            one; its pipeline class is not supported or cannot use the scheduler or the images' size; a component's
            files are missing, cut, or do not belong together. While they load: a component's library refuses it, or
            weights of it are missing. The message says which component and what to do.
    """
    import diffusers

    devices.require(source.device)
    folder = folder_on_disk(source)
    index = read_record(folder / INDEX)
    family = families.of_index(source, index)
    if sampling:
        samplers.check(family.TRAITS, sampling)
        sizes.check(family.TRAITS, source, sampling)
        arguments_of(getattr(diffusers, index["_class_name"]), sampling)
    parts = components.components(index)
    check_without(source, family, index)
    denoiser_class(family, index)
    classes = {n: components.class_of(n, *parts[n]) for n in parts if n not in source.without}
    denoiser = family.TRAITS.denoiser
    inside = single_file.held(source, denoiser, classes)
    for name in sorted(classes, key=lambda name: name != denoiser):
        components.check(folder, name, classes[name], source.variant, name == denoiser, weights=name not in inside)
    loaded = {name: load_component(folder, name, cls, source) for name, cls in classes.items() if name not in inside}
    given = loaded | absent(folder) | dict.fromkeys(source.without)
    if inside:
        pipe = single_file.assemble(folder, getattr(diffusers, index["_class_name"]), source, inside, given)
    else:
        pipe = assemble(folder, index, given)
    check_vocabularies(pipe.components)
    if sampling and not own_scheduler:
        samplers.use(pipe, sampling)
    return pipe


def absent(folder: Path) -> dict[str, None]:
    """Components that a model folder's model_index.json leaves out: from_pretrained wants them named."""
    index = read_record(folder / INDEX)
    return dict.fromkeys(name for name, entry in index.items() if isinstance(entry, list) and entry[0] is None)


def folder_on_disk(source: Source) -> Path:
    """The model's folder: the local one, or that of the hub's cache, fetched if the source allows it."""
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    folder = Path(source.model)
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise SpecError(f"model: {source.model!r} has no {INDEX}; give the folder that save_pretrained wrote")
        return folder
    if folder.is_file():
        raise SpecError(
            f"model: {source.model!r} is a file; give it as single_file, and as model the diffusers folder that it "
            "belongs to (its configurations and tokenizers, and what the file lacks)"
        )
    if folder.is_symlink():
        raise SpecError(f"model: {source.model!r} is a link to a folder that is not there")
    if folder.is_absolute() or source.model.startswith(".") or source.model.count("/") != 1:
        raise SpecError(f"model: {source.model!r} is neither a folder nor a hub id (owner/name)")
    if source.single_file:  # gigabytes that it replaces are not fetched
        return configured(source)
    try:
        index = configuration(source, INDEX)
    except SpecError:
        index = {}  # what is wrong is said below
    if index:
        families.of_index(source, index)  # before gigabytes are fetched
    try:
        return Path(
            DiffusionPipeline.download(
                source.model,
                revision=source.revision,
                variant=source.variant,
                local_files_only=source.local_files_only,
                **dict.fromkeys(source.without),
            )
        )
    except GatedRepoError as error:
        raise SpecError(
            f"model: {source.model!r} is gated; accept its licence on its hub page, then run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise SpecError(
            f"model: {source.model!r} is not on this machine; run `hf download {source.model}` or give a local folder"
        ) from error


def check_without(source: Source, family: ModuleType, index: Mapping[str, Any]) -> None:
    """What is left out is a component, and one that a pipeline can do without."""
    known = [name for name in index if not name.startswith("_")]
    needed = (family.TRAITS.denoiser, "scheduler", "vae")
    for name in source.without:
        require(name in known, "without", name, f"a component of the pipeline ({', '.join(known)})")
        require(name not in needed, "without", name, f"a component that can be left out, as {', '.join(needed)} cannot")


def denoiser_class(family: ModuleType, index: Mapping[str, Any]) -> Any:
    """The class of the denoiser that an index lists; SpecError unless it is one that the family prunes."""
    name = family.TRAITS.denoiser
    entry = components.components(index).get(name)
    if entry is None:
        raise SpecError(f"model: {INDEX} lists no {name}, which is what is pruned; {AGAIN}")
    found = components.class_of(name, *entry)
    if family.TRAITS.network not in (cls.__name__ for cls in found.__mro__):
        raise SpecError(
            f"model: {INDEX} says that the {name} is a {entry[1]}; what can be pruned is a {family.TRAITS.network}"
        )
    return found


def load_component(folder: Path, name: str, cls: Any, source: Source) -> Any:
    """One component as DiffusionPipeline.from_pretrained loads it; SpecError where weights of it are missing."""
    import torch
    from torch import nn

    place = folder / name
    if not issubclass(cls, nn.Module):
        with components.explained(name, folder):
            return cls.from_pretrained(place, local_files_only=True)
    theirs = components.is_diffusers(cls)
    options = {"torch_dtype" if theirs else "dtype": getattr(torch, source.dtype), "low_cpu_mem_usage": True}
    if source.variant and stored.has_variant(place, source.variant):
        options["variant"] = source.variant
    with components.explained(name, folder):
        network, about = cls.from_pretrained(place, local_files_only=True, output_loading_info=True, **options)
    components.check_names(name, folder, set(about["missing_keys"]), set(about["unexpected_keys"]) if theirs else ())
    return network


def check_vocabularies(loaded: Mapping[str, Any]) -> None:
    """No tokenizer has more tokens than the text encoder of its number has embeddings."""
    for name, tokenizer in loaded.items():
        encoder = loaded.get(name.replace("tokenizer", "text_encoder")) if name.startswith("tokenizer") else None
        size = getattr(getattr(encoder, "config", None), "vocab_size", None)
        if size is not None and len(tokenizer) > size:
            raise SpecError(
                f"model: {name} has {len(tokenizer):,} tokens and its text encoder {size:,}; they do not belong "
                "together"
            )


def assemble(folder: Path, index: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
    """The pipeline of components that are loaded."""
    import diffusers

    cls = getattr(diffusers, index["_class_name"])
    with components.explained("pipeline", folder):
        return cls.from_pretrained(folder, local_files_only=True, **parts)


def configuration(source: Source, name: str) -> dict[str, Any]:
    """A JSON file of a diffusers folder or hub checkpoint; SpecError where it is not on this machine.

    For the paper's checkpoints what counts of it is shipped (facts), so that a plan needs no download.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path = Path(source.model) / name
    if not Path(source.model).is_dir():
        try:
            local = source.local_files_only
            path = Path(hf_hub_download(source.model, name, revision=source.revision, local_files_only=local))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError):
            known = shipped(source)
            if name in known:
                return known[name]
    if not path.is_file():
        raise SpecError(
            f"model: {source.model!r} has no {name} on this machine; give a diffusers folder (its JSON files are "
            f"enough), or run `hf download {source.model} --include '*.json'`"
        )
    return read_record(path)
