"""What a sweep needs on this machine before a job starts: checkpoints, prompts, images, networks. No torch here."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from eval.network_weights import JUDGES
from eval.sweep.pairing import KEY, pairs
from obsdiff import models
from obsdiff.captions.prompts import choose_prompts, is_large, require_file
from obsdiff.errors import SpecError
from obsdiff.pipelines import families
from obsdiff.pipelines.complete import require_layers, require_model
from obsdiff.pipelines.published import require_fit
from obsdiff.pipelines.sources import files_below
from obsdiff.source import Source
from obsdiff.typed import require


@dataclass(frozen=True)
class Need:
    """One thing that must be here."""

    where: str
    """what asks for it: `config/models/sd3-medium.yaml`"""
    key: str
    """`evaluation.prompts`"""
    value: str
    problem: str | None
    """what is wrong with it and the next step; None where it is here"""

    @property
    def text(self) -> str:
        return f"{self.where}: {self.problem or f'{self.key}: {self.value}'}"


def need(where: str, key: str, value: str, check: Callable[[], Any]) -> Need:
    try:
        check()
    except SpecError as error:
        return Need(where, key, value, str(error))
    return Need(where, key, value, None)


def needs_of(where: str, model: Mapping[str, Any]) -> Iterator[Need]:
    """What a model file names, each looked for."""
    source, evaluation = Source(**model["source"]), model["evaluation"]
    yield need(where, "source.model", source.model, lambda: prefixed("source", require_model, source, model["family"]))
    for part in ("evaluation", "calibration"):
        other = evaluation["prompts"] if part == "calibration" else None
        yield prompts_need(where, part, model[part], other)
    place = evaluation["reference"]
    yield need(where, "evaluation.reference", place, lambda: check_reference(place))
    if "paired" in evaluation.get("fid_references", ()) and not is_large(evaluation["prompts"]):
        yield need(where, KEY, "paired", partial(check_pairs, evaluation))
    for key, check in JUDGES.items():
        if (value := evaluation.get(key)) is not None:
            yield need(where, f"evaluation.{key}", value, partial(check, value))


def prompts_need(where: str, part: str, given: Mapping[str, Any], other: str | None) -> Need:
    """Of a prompt file, and of as many prompts as are asked of it."""
    return need(where, f"{part}.prompts", given["prompts"], lambda: prefixed(part, check_prompts, given, other))


def layers_needs(key: str, options: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Need]:
    """Of the layers that fields of PruneSpec name or ask for, and of the weights that one names.

    Args:
        key: what holds the options.
    """
    source = Source(**model["source"])
    traits = families.traits(source, model["family"])
    denoiser = traits.denoiser
    if options.get("convolutions") and traits != families.UNKNOWN:
        asked = partial(prefixed, key, models.require_convolutions, traits)
        yield need("config", f"{key}.convolutions", "True", asked)
    if place := options.get("weights"):
        yield need("config", f"{key}.weights", place, partial(prefixed, key, require_fit, place, source))
    for name in ("exclude", "layer_sparsity"):
        for pattern in options.get(name, ()):

            def check(pattern: str = pattern, name: str = name) -> None:
                try:
                    require_layers(source, denoiser, [pattern])
                except SpecError as error:
                    raise SpecError(f"{key}.{name}: {error}") from None

            yield need("config", f"{key}.{name}", pattern, check)


def prefixed(part: str, check: Callable[..., Any], *arguments: Any) -> None:
    """A check whose errors begin with the key's part."""
    try:
        check(*arguments)
    except SpecError as error:
        raise SpecError(f"{part}.{error}") from None


def check_prompts(given: Mapping[str, Any], other: str | None = None) -> None:
    """The file is there and, where counting is quick, holds enough.

    Args:
        other: a prompt file whose captions are passed over.
    """
    require_file(given["prompts"])
    small = not is_large(given["prompts"])
    if other is not None and (not Path(other).is_file() or is_large(other)):
        other = None
    if small:
        choose_prompts(given["prompts"], given["count"], given.get("choice"), other)


def check_reference(folder: str) -> None:
    """A folder that holds images, told by their content."""
    hint = "; data/README.md says where it comes from" if Path(folder).parts[:1] == ("data",) else ""
    require(Path(folder).is_dir(), "evaluation.reference", folder, f"a folder{hint}")
    ok = any(is_image(path) for path in files_below(Path(folder)))
    require(ok, "evaluation.reference", folder, f"a folder that holds images{hint}")


def check_pairs(evaluation: Mapping[str, Any]) -> None:
    """Every prompt has a real image of its own; asked only where prompts and a folder are, which other needs say."""
    try:
        chosen = choose_prompts(Path(evaluation["prompts"]), evaluation["count"], evaluation.get("choice"))
    except SpecError:
        return
    if (folder := Path(evaluation["reference"])).is_dir():
        pairs(files_below(folder), chosen)


def is_image(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def once(needs: Iterable[Need]) -> list[Need]:
    """Each need once, of all that ask for it."""
    asking: dict[tuple[str, str, str | None], list[str]] = {}
    for found in needs:
        names = asking.setdefault((found.key, found.value, found.problem), [])
        names += [found.where] if found.where not in names else []
    return [Need(", ".join(names), *rest) for rest, names in asking.items()]


def missing(needs: Iterable[Need]) -> str | None:
    """All problems as one message, one per line; None where there are none."""
    lines = [found.text for found in once(needs) if found.problem]
    if len(lines) < 2:
        return lines[0] if lines else None
    head = f"{len(lines)} things are missing or unusable (`python -m eval check` lists them with their sizes):"
    return "\n  ".join([head, *lines])
