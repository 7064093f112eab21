"""The grid of a sweep: config → cells.

What a method ignores is set to its neutral value, so that one result has one cell: the dense model has no sparsity,
methods without calibration have no weighting, one package and no calibration axis, SparseGPT weights all steps alike.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from eval.sweep.cells import PLAIN, Cell, decimal, text_of
from eval.sweep.overrides import Model, Overrides, calibration_of, changed, relevant
from obsdiff import methods, patterns, registry
from obsdiff.errors import SpecError
from obsdiff.spec import PruneSpec
from obsdiff.typed import no_such_key

DEFAULTS: dict[str, Any] = {
    "pattern": ["unstructured"],
    "sparsity": {},
    "weighting": ["log_decrease"],
    "packages": [4],
    "options": [{}],
    "sampling": [{}],
    "calibration": [{}],
    "seed": [0],
}
"""of a block that leaves an axis out"""
INNER = ("weighting", "packages", "options", "sampling", "calibration", "seed")


def blocks(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The grid's blocks, complete, each with its models; `packages` and `seeds` of the config stand for theirs."""
    given = config["grid"]
    instead: dict[str, Any] = {"packages": [config["packages"]]} if "packages" in config else {}
    instead |= {"seed": list(range(config["seeds"]))} if "seeds" in config else {}
    listed = given if isinstance(given, list) else [given]
    return [DEFAULTS | {"models": config["models"]} | block | instead for block in listed]


def models_of(config: Mapping[str, Any]) -> list[str]:
    """Names of the models that the grid uses, in order."""
    return list(dict.fromkeys(name for block in blocks(config) for name in block["models"]))


def cell_of(
    name: str, model: Model, axes: Mapping[str, Any], pruning: Mapping[str, Any], shared: Collection[str] = ()
) -> tuple[Cell, Overrides] | None:
    """The canonical cell of one point of the grid; None where the method does not serve the pattern.

    Args:
        shared: names that several prompt files of the sweep have.

    Raises:
        SpecError: a value is not allowed.
    """
    outer = {key: axes[key] for key in ("method", "pattern", "sparsity", "weighting", "packages", "seed")}
    try:
        registry.check("obsdiff.methods", axes["method"], "method")
        pattern = patterns.resolve(patterns.canonical(axes["pattern"]))
    except registry.UnknownEntry as error:
        raise SpecError(str(error)) from None
    traits = methods.traits(axes["method"])
    sampling = changed("grid.sampling", axes["sampling"], model)
    calibration = calibration_of(axes["calibration"], model, sampling)
    if not traits.prunes:
        dense = Cell(
            name, "dense", "unstructured", "0.00", "uniform", "1", PLAIN, text_of(sampling), PLAIN, str(axes["seed"])
        )
        return dense, Overrides({}, sampling, {})
    if pattern.traits.kind not in traits.kinds:
        return None
    if pattern.sparsity is not None:
        outer["sparsity"] = None
    if "packages" in traits.defaults:  # a part of the method, whatever packages others have
        del outer["packages"]
    rest = {**pruning, **outer}
    options = relevant(axes["options"], rest)
    spec = PruneSpec(**{**rest, **options})
    if not spec.sparsity:
        raise SpecError(f"sparsity: 0 with method {spec.method!r} is the dense model; leave 0 out of the grid")
    if not spec.calibrates:
        calibration = {}
    return Cell(
        name,
        spec.method,
        spec.pattern,
        decimal(spec.sparsity),
        spec.weighting if traits.weighted else "uniform",
        str(spec.packages if spec.statistic else 1),
        text_of(options),
        text_of(sampling),
        text_of(calibration, shared),
        str(spec.seed),
    ), Overrides(options, sampling, calibration)


def points(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations; sparsities may be given pattern by pattern, and those of N:M are its own."""
    amounts = block["sparsity"]
    if isinstance(amounts, dict):
        amounts = {patterns.canonical(name): values for name, values in amounts.items()}
    for method, pattern in product(block["method"], block["pattern"]):
        mine = amounts.get(patterns.canonical(pattern), [None]) if isinstance(amounts, dict) else amounts
        for sparsity, *rest in product(mine, *(block[name] for name in INNER)):
            yield {"method": method, "pattern": pattern, "sparsity": sparsity} | dict(zip(INNER, rest, strict=True))


def shared_names(config: Mapping[str, Any]) -> set[str]:
    """Names that several prompt files of the grid's calibrations have."""
    paths = defaultdict(set)
    for block in blocks(config):
        for asked in block["calibration"]:
            if "prompts" in asked:
                paths[Path(asked["prompts"]).name].add(asked["prompts"])
    return {name for name, found in paths.items() if len(found) > 1}


def check_sparsities(block: Mapping[str, Any]) -> None:
    """Raise SpecError where sparsities by pattern name another pattern than the block's, or leave one out."""
    amounts = block["sparsity"]
    if not isinstance(amounts, dict) or not amounts:
        return
    listed = [patterns.canonical(name) for name in block["pattern"]]
    for name in amounts:
        if patterns.canonical(name) not in listed:
            raise no_such_key(f"grid.sparsity.{name}", name, block["pattern"])
    given = {patterns.canonical(name) for name in amounts}
    for name in listed:
        if name not in given and patterns.resolve(name).sparsity is None:
            raise SpecError(f"grid.sparsity: has none for pattern {name!r}; give a list of them")


def grid(config: Mapping[str, Any], models: Mapping[str, Model]) -> dict[Cell, Overrides]:
    """All cells of a config in its order, each once, with what they override; the dense cells are always there.

    Args:
        models: name → content, of models_of(config).

    Raises:
        SpecError: a value is not allowed, or a method or pattern makes no cell.
    """
    found: dict[Cell, Overrides] = {}
    texts: dict[tuple[str, str], dict[str, Any]] = {}
    check_pruning(config["pruning"])
    shared = shared_names(config)
    for block in blocks(config):
        own: dict[Cell, Overrides] = {}
        for name in block["models"]:
            for point in points(block):
                made = cell_of(name, models[name], point, config["pruning"], shared)
                if made is not None:
                    cell, overrides = made
                    own[cell.dense()] = Overrides({}, overrides.sampling, {})
                    own[cell] = overrides
                    for axis, values in overrides._asdict().items():
                        known = texts.setdefault((axis, getattr(cell, axis)), values)
                        if known != values:
                            what = f"{known} and {values} would share folders; give their files other names"
                            raise SpecError(f"grid.{axis}: {what}")
        check_used(block, list(own))
        check_sparsities(block)
        found |= {cell: overrides for cell, overrides in own.items() if cell not in found}
    return found


def check_pruning(values: Mapping[str, Any]) -> None:
    """Raise SpecError where a value of the config's `pruning` is not allowed, whatever the method."""
    try:
        PruneSpec(method="dense", **values)
    except SpecError as error:
        raise SpecError(f"pruning.{error}") from None


def check_used(block: Mapping[str, Any], cells: list[Cell]) -> None:
    """Raise SpecError where a method or pattern makes no cell."""
    for key in ("method", "pattern"):
        for value in block[key]:
            name = patterns.canonical(value)
            if not any(getattr(cell, key) == name for cell in cells) and set(block["method"]) != {"dense"}:
                raise SpecError(f"grid.{key}: {value!r} goes with none of the others; leave it out")
