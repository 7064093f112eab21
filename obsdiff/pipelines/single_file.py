"""Weights in one safetensors file, as ComfyUI, Civitai and the hub's model pages have them.

Such a file has the denoiser, and often the VAE and text encoders too, under the names of the code that trained them.
Configurations, tokenizers and the components that it lacks come from a diffusers folder. Nothing imports torch before a
pipeline is assembled.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from obsdiff.errors import SpecError
from obsdiff.pipelines.stored import header
from obsdiff.source import Source

PREFIXES = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.", "text_encoders."),
}
"""what a component's tensors begin with in a file of several; components with a number are named after the first"""
QUANTISED = ("F8", "F4", "I8", "U8", "I4")
"""how the types of quantised weights begin"""


def tensors_of(source: Source) -> list[str]:
    """The names of the file's tensors; none where the source has no such file.

    Raises:
        SpecError: the file is missing, cut or not a safetensors file, or quantised.
    """
    if source.single_file is None:
        return []
    path = Path(source.single_file)
    if not path.is_file():
        raise SpecError(f"single_file: {source.single_file!r} is not a file on this machine; give its path")
    tensors = header(path)
    quantised = (f"{key} is {entry.type}" for key, entry in tensors.items() if entry.type.startswith(QUANTISED))
    if found := next(quantised, None):
        raise SpecError(f"single_file: {path} is quantised ({found}), which leaves nothing to prune; give the original")
    return list(tensors)


def held(source: Source, denoiser: str, names: Collection[str]) -> set[str]:
    """The components whose weights are in the file: the denoiser, and those whose tensors are there.

    Args:
        denoiser: the component.
        names: of the pipeline's components.

    Raises:
        SpecError: as tensors_of().
    """
    if source.single_file is None:
        return set()
    tensors = tensors_of(source)
    begun = {part for part, prefixes in PREFIXES.items() if any(key.startswith(prefixes) for key in tensors)}
    return {name for name in names if name == denoiser or any(name.startswith(part) for part in begun)}


def assemble(folder: Path, cls: Any, source: Source, names: Collection[str], parts: Mapping[str, Any]) -> Any:
    """The pipeline of components that are loaded, and of those that the file holds.

    Args:
        folder: with the configurations.
        cls: the pipeline's class.
        names: of the components that the file holds.
        parts: the others, by name; None for those that are left out.

    Raises:
        SpecError: diffusers reads no single file of this class, or this file is not of this model.
    """
    import torch

    from obsdiff.pipelines import components

    file = Path(str(source.single_file))
    if not hasattr(cls, "from_single_file"):
        raise SpecError(
            f"single_file: diffusers reads no single file of a {cls.__name__}; save the model as a diffusers folder, "
            "and give that as model"
        )
    options: dict[str, Any] = {"torch_dtype": getattr(torch, source.dtype), "local_files_only": True}
    lacking = f"single_file: {file} lacks tensors of what {folder} describes; give the folder of the same model"
    with components.explained("single_file", folder, file):
        try:
            pipe = cls.from_single_file(file, config=str(folder), **options, **parts)
        except NotImplementedError:  # a tensor without data cannot be converted to the dtype
            raise SpecError(lacking) from None
    if any(tensor.is_meta for name in names for tensor in getattr(pipe, name).state_dict().values()):
        raise SpecError(lacking)
    return pipe
