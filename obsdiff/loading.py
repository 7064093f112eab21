"""Opening a diffusers pipeline: hub id or folder, revision, variant, dtype, device, offload."""

import json
from pathlib import Path
from typing import Any

from obsdiff.errors import SpecError
from obsdiff.spec import Source


def load_pipeline(source: Source) -> Any:
    """Load a pipeline in evaluation mode.

    Raises:
        SpecError: no such folder or checkpoint, or a gated one, with what to do.
    """
    import torch
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    folder = Path(source.model)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise SpecError(f"model: {source.model!r} has no model_index.json; give the folder that save_pretrained wrote")
    if not folder.is_dir() and (folder.is_absolute() or source.model.startswith(".") or source.model.count("/") != 1):
        raise SpecError(f"model: {source.model!r} is neither a folder nor a hub id (owner/name)")
    try:
        pipe = DiffusionPipeline.from_pretrained(
            source.model,
            revision=source.revision,
            variant=source.variant,
            dtype=getattr(torch, source.dtype),
            local_files_only=source.local_files_only,
            **absent(folder),
        )
    except GatedRepoError as error:
        raise SpecError(
            f"model: {source.model!r} is gated; accept its licence on its hub page, then run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise SpecError(
            f"model: {source.model!r} is not on this machine; run `hf download {source.model}` or give a local folder"
        ) from error
    if source.offload == "model":
        pipe.enable_model_cpu_offload(device=source.device)
    elif source.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=source.device)
    else:
        pipe.to(source.device)
    return pipe


def absent(folder: Path) -> dict[str, None]:
    """Components that a local folder's model_index.json says are left out: from_pretrained wants them named."""
    index = folder / "model_index.json"
    entries = json.loads(index.read_text()) if index.is_file() else {}
    return {name: None for name, entry in entries.items() if isinstance(entry, list) and entry[0] is None}
