"""Files of weights that somebody else pruned (PruneSpec.weights), looked at before anything loads. No torch in here."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from obsdiff.errors import SpecError
from obsdiff.models import AUTO
from obsdiff.pipelines import families
from obsdiff.pipelines.sources import component_files
from obsdiff.pipelines.stored import Shapes, shards, stored_shapes
from obsdiff.source import Source

KEY = "weights"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def files_of(place: str, denoiser: str) -> list[Path]:
    """The safetensors files of given weights.

    Args:
        place: a file; a denoiser's folder; or a pipeline's, which has it under the component's name.
        denoiser: the component.

    Raises:
        SpecError: there are none, several sets of them, or pickles alone.
    """
    path = Path(place)
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    folder = path / denoiser if (path / denoiser).is_dir() else path
    there = [path] if path.is_file() else sorted(folder.iterdir()) if folder.is_dir() else []
    indices = [file for file in there if ".safetensors.index" in file.name]
    whole = [file for file in there if file.suffix == ".safetensors"]
    if len(indices) == 1:
        with about_weights():
            return shards(indices[0])
    if not indices and len(whole) == 1:
        return whole
    if indices or whole:
        several = ", ".join(file.name for file in indices or whole)
        raise SpecError(f"{KEY}: {str(folder)!r} holds several sets of weights ({several}); give the file of one")
    if pickles := [file for file in there if file.suffix in PICKLES]:
        raise SpecError(
            f"{KEY}: {str(pickles[0])!r} is a pickle, which runs code as it is opened; where it comes from, write "
            "the denoiser's state_dict() with safetensors.torch.save_file, and give that file"
        )
    raise SpecError(f"{KEY}: {place!r} is neither a .safetensors file nor a diffusers folder with one")


@contextmanager
def about_weights() -> Iterator[None]:
    """Errors of a model's files are errors of these."""
    try:
        yield
    except SpecError as error:
        raise SpecError(str(error).replace("model:", f"{KEY}:", 1)) from None


def shapes_of(files: Iterable[Path]) -> Shapes:
    with about_weights():
        return stored_shapes(list(files))


def denoiser_of(source: Source) -> str:
    """The component that is pruned."""
    return families.traits(source, AUTO).denoiser


def files_for(place: str, source: Source) -> list[Path]:
    """files_of() for a model."""
    return files_of(place, denoiser_of(source))


def require_fit(place: str, source: Source) -> None:
    """Raise SpecError unless given weights are there and, told from headers, of the model's layers.

    Args:
        source: the dense model; if it is not on this machine, only the given weights are looked at.
    """
    found = shapes_of(files_for(place, source))
    files = component_files(source).get(denoiser_of(source), [])
    own = [path for path in files if path.suffix == ".safetensors"]
    if own and not source.single_file:
        compare(place, found, shapes_of(own))


def compare(place: str, given: Shapes, own: Shapes) -> None:
    """Raise SpecError where given tensors have other names or shapes than the model's own."""
    for names, what in ((own.keys() - given.keys(), "lacks"), (given.keys() - own.keys(), "should not have")):
        if names:
            raise SpecError(f"{KEY}: {place!r} {what} {min(names)} ({len(names)} such in all) to be of this model")
    if changed := [name for name in own if own[name] != given[name]]:
        one, other = (tuple(shapes[changed[0]]) for shapes in (given, own))
        raise SpecError(
            f"{KEY}: {place!r} has {changed[0]} of shape {one}, and the model of {other}; only weights with zeros can "
            "be taken, not those whose heads or neurons were removed"
        )
