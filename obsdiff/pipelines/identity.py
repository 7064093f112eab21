"""Which pipeline this is: a hash of every component that can change a pixel, of its weights, configuration and dtype.

The hashes are of what a pipeline holds in memory, so that an edited file, an adapter that was fused and a component
that was swapped all give another one. A pipeline that was opened from files and not touched since has them from a
cache, under the content of those files.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff.errors import SpecError
from obsdiff.pipelines.sources import SINGLE_FILE, component_files
from obsdiff.source import Source
from obsdiff.storage.cache import keep, kept, known_hash
from obsdiff.storage.files import code_identity, file_hash, hash_of

ABSENT = "absent"
"""in the place of a hash: the pipeline has no such component"""
SCHEDULER = "scheduler"
PIPELINE = "pipeline"
"""in the place of a component: the pipeline's class and its own settings, such as force_zeros_for_empty_prompt"""
PASSING = {"architectures", "dtype", "name_or_path", "processor_class", "pruned", "torch_dtype", "transformers_version"}
"""keys of a configuration that say where it came from, or what the tensors tell themselves"""
LIBRARIES = ("torch", "diffusers", "transformers", "tokenizers")

Identity = dict[str, str]
"""component → SHA-256, or ABSENT"""


def identity_of(pipe: Any) -> Identity:
    """Hash every component of a pipeline as it is in memory.

    Raises:
        SpecError: weights are on the meta device (sequential offload), so they cannot be read; or a component is of a
            kind that cannot be hashed.
    """
    return {PIPELINE: pipeline_hash(pipe)} | {
        name: component_hash(name, part) for name, part in sorted(pipe.components.items())
    }


def identity_of_source(source: Source, pipe: Any) -> Identity:
    """identity_of() of a pipeline that was just opened from `source`, taken from the cache for files hashed before."""
    files = component_files(source)
    found = {PIPELINE: pipeline_hash(pipe)}
    for name, part in sorted(pipe.components.items()):
        if not isinstance(part, nn.Module) or name not in files:
            found[name] = component_hash(name, part)
            continue
        content = [[path.name, known_hash(path)] for path in files[name] + files.get(SINGLE_FILE, [])]
        about = [type(part).__name__, source.dtype, source.variant, code_identity([Path(__file__)], LIBRARIES)]
        key = json.dumps([content, about]).encode()
        if (known := kept("components", key)) is not None:
            found[name] = str(known["component"])
            continue
        found[name] = component_hash(name, part)
        keep("components", key, {"component": found[name]})
    return found


def different(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of the components in which two identities differ, a missing one being absent."""
    names = sorted(one.keys() | other.keys())
    return [name for name in names if one.get(name, ABSENT) != other.get(name, ABSENT)]


def combined(identity: Mapping[str, str]) -> str:
    """An identity as one SHA-256."""
    return hash_of(json.dumps(identity, sort_keys=True).encode())


def pipeline_hash(pipe: Any) -> str:
    """SHA-256 of a pipeline's class and of what its configuration says beside its components."""
    settings = {k: v for k, v in dict(pipe.config).items() if k not in pipe.components}
    return hash_of(json.dumps([type(pipe).__name__, plain(settings)], sort_keys=True).encode())


def component_hash(name: str, part: Any) -> str:
    """SHA-256 of one component: class, configuration, and of a network every tensor with its dtype."""
    part = getattr(part, "_orig_mod", part)  # torch.compile() changes how a network runs, not what it computes
    if part is None:
        return ABSENT
    digest = sha256(json.dumps([type(part).__name__, configuration_of(name, part)], sort_keys=True).encode())
    if isinstance(part, nn.Module):
        for key, tensor in sorted(part.state_dict().items()):
            if tensor.is_meta:
                raise SpecError(f"model: {name}.{key} has no weights in memory; load it without sequential offload")
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            try:
                add_tensor(digest, tensor)
            except (RuntimeError, TypeError, NotImplementedError) as error:
                kind = type(tensor).__name__
                raise SpecError(f"model: {name}.{key} is a {kind}, which cannot be hashed ({error})") from None
    return digest.hexdigest()


def add_tensor(digest: Any, tensor: Tensor) -> None:
    """Feed a tensor's bytes, whatever its dtype and device."""
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(plain.view(torch.uint8).numpy() if plain.numel() else b"")


def configuration_of(name: str, part: Any) -> Any:
    """What defines a component beside its tensors, as JSON."""
    config = getattr(part, "config", None)
    if hasattr(part, "get_vocab"):
        special = {k: str(v) for k, v in part.special_tokens_map.items()}
        return [special, part.model_max_length, part.padding_side, hash_of(vocabulary_of(part).encode())]
    records: tuple[Any, ...] = (config, part)
    for record in records:
        if isinstance(record, Mapping):
            return plain(record)
        if hasattr(record, "to_dict"):
            return plain(record.to_dict())
    if isinstance(part, nn.Module):
        return None
    if hasattr(part, "save_pretrained"):
        with TemporaryDirectory() as folder:
            part.save_pretrained(folder)
            return [[p.name, file_hash(p)] for p in sorted(Path(folder).rglob("*")) if p.is_file()]
    raise SpecError(f"model: {name} is a {type(part).__name__}, which has no configuration to hash")


def vocabulary_of(tokenizer: Any) -> str:
    """Vocabulary and rules of a tokenizer, without the padding and truncation that its last call left behind."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(sorted(tokenizer.get_vocab().items()))
    record = json.loads(backend.to_str())
    return json.dumps({k: v for k, v in record.items() if k not in ("padding", "truncation")}, sort_keys=True)


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without private and passing keys, JSON-able."""
    kept = {str(k): v for k, v in record.items() if not str(k).startswith("_") and k not in PASSING}
    result: dict[str, Any] = json.loads(json.dumps(kept, sort_keys=True, default=str))
    return result
