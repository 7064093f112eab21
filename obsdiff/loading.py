"""Opening a diffusers pipeline: hub id or folder, revision, variant, dtype, device, offload."""

import json
from pathlib import Path
from typing import Any

from obsdiff import models, schedulers
from obsdiff.errors import SpecError
from obsdiff.spec import Sampling, Source, require

FACTS = Path(__file__).parent / "facts"


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
    """
    if source.offload == "model":
        pipe.enable_model_cpu_offload(device=source.device)
    elif source.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=source.device)
    else:
        pipe.to(source.device)


def open_pipeline(source: Source, sampling: Sampling | None = None, own_scheduler: bool = False) -> Any:
    """Load a pipeline in evaluation mode into main memory.

    Args:
        sampling: the pipeline gets its scheduler; its own where left out.
        own_scheduler: it keeps its own one; whether it can use the sampling's is checked all the same.

    Raises:
        SpecError: no such folder or checkpoint, or a gated one, with what to do; or a scheduler that the pipeline
            cannot use, before any weights load where its configuration is on this machine.
    """
    import torch
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    folder = Path(source.model)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise SpecError(f"model: {source.model!r} has no model_index.json; give the folder that save_pretrained wrote")
    if not folder.is_dir() and (folder.is_absolute() or source.model.startswith(".") or source.model.count("/") != 1):
        raise SpecError(f"model: {source.model!r} is neither a folder nor a hub id (owner/name)")
    if sampling and sampling.scheduler:
        index = configuration(source, "model_index.json")
        schedulers.check(models.family_named(index["_class_name"]), sampling)
    if source.without:
        known = [name for name in configuration(source, "model_index.json") if not name.startswith("_")]
        for name in source.without:
            require(name in known, "without", name, f"a component of the pipeline ({', '.join(known)})")
    try:
        pipe = DiffusionPipeline.from_pretrained(
            source.model,
            revision=source.revision,
            variant=source.variant,
            dtype=getattr(torch, source.dtype),
            local_files_only=source.local_files_only,
            **absent(folder) | dict.fromkeys(source.without),
        )
    except GatedRepoError as error:
        raise SpecError(
            f"model: {source.model!r} is gated; accept its licence on its hub page, then run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise SpecError(
            f"model: {source.model!r} is not on this machine; run `hf download {source.model}` or give a local folder"
        ) from error
    if sampling and not own_scheduler:
        schedulers.use(pipe, sampling)
    return pipe


def absent(folder: Path) -> dict[str, None]:
    """Components that a local folder's model_index.json says are left out: from_pretrained wants them named."""
    index = folder / "model_index.json"
    entries = json.loads(index.read_text()) if index.is_file() else {}
    return {name: None for name, entry in entries.items() if isinstance(entry, list) and entry[0] is None}


def configuration(source: Source, name: str) -> dict[str, Any]:
    """A JSON file of a diffusers folder or hub checkpoint; SpecError where it is not on this machine.

    For the paper's checkpoints what counts of it is shipped (obsdiff/facts), so that a plan needs no download.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path = Path(source.model) / name
    if not Path(source.model).is_dir():
        try:
            local = source.local_files_only
            path = Path(hf_hub_download(source.model, name, revision=source.revision, local_files_only=local))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError):
            shipped = FACTS / f"{source.model.replace('/', '--')}.json"
            known: dict[str, dict[str, Any]] = json.loads(shipped.read_text()) if shipped.is_file() else {}
            if name in known:
                return known[name]
    if not path.is_file():
        raise SpecError(
            f"model: {source.model!r} has no {name} on this machine; give a diffusers folder (its JSON files are "
            f"enough), or run `hf download {source.model} --include '*.json'`"
        )
    record: dict[str, Any] = json.loads(path.read_text())
    return record
