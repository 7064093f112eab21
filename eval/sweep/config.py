"""A sweep's configuration: config.yaml and the model files it names, checked as a whole before any job starts."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.sweep.cells import Cell
from eval.sweep.grid import grid, models_of
from eval.sweep.needs import Need, layers_needs, missing, needs_of, prompts_need
from eval.sweep.overrides import Overrides, sampling_of
from eval.sweep.reading import home, read_mapping
from eval.sweep.schemas import check
from eval.sweep.tiny import shrunk, shrunk_model
from obsdiff import devices, models, registry
from obsdiff.errors import SpecError
from obsdiff.models import AUTO
from obsdiff.pipelines import families
from obsdiff.sampling import Sampling
from obsdiff.source import Source
from obsdiff.typed import made, require

MODELS = Path("config/models")
PAPER = Path("config/paper/values.csv")
PATHS = (
    *(("source", key) for key in ("model", "single_file")),
    ("calibration", "prompts"),
    *(("evaluation", key) for key in ("prompts", "reference", "evaluator", "image_reward")),
)
"""keys of a model file that hold paths"""


@dataclass(frozen=True)
class Sweep:
    """A checked configuration.

    Attributes:
        cells: in the order of the tables' rows.
        models: name → the content of config/models/<name>.yaml.
        options: a cell's options, as in its path → the fields of PruneSpec they stand for.
        sampling: the same of its sampling → fields of Sampling.
        calibration: the same of its calibration → fields of the model file's calibration, and `sampling`.
    """

    cells: list[Cell]
    models: dict[str, dict[str, Any]]
    options: dict[str, dict[str, Any]]
    sampling: dict[str, dict[str, Any]]
    calibration: dict[str, dict[str, Any]]


def results_of(config: Mapping[str, Any]) -> str:
    """The folder of all that a sweep writes: what tiny models gave never lies among real results."""
    results = str(Path(home(config["results"])))
    return f"{results}/tiny" if is_tiny(config) else results


def is_tiny(config: Mapping[str, Any]) -> bool:
    return config.get("scale") == "tiny"


def read_record(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """config/models/<name>.yaml; what it leaves out is as in the model that it is `like`."""
    path = MODELS / f"{name}.yaml"
    known = sorted(p.stem for p in MODELS.glob("*.yaml"))
    key = f"{MODELS / seen[-1]}.yaml: like" if seen else "models"
    require(path.is_file(), key, name, f"a file of {MODELS} ({', '.join(known)})")
    if name in seen:
        raise SpecError(f"{key}: {' → '.join((*seen, name))} go round in a circle; give one of them all its keys")
    record = read_mapping(path)
    other = record.pop("like", None)
    if other is None:
        return record
    require(isinstance(other, str), f"{path}: like", other, "the name of a model file")
    for part, value in read_record(other, (*seen, name)).items():
        own = record.get(part)
        both = isinstance(own, dict) and isinstance(value, dict)
        record[part] = value | own if both else value if own is None else own
    return record


def read_model(name: str, files: bool = True) -> dict[str, Any]:
    """The content of config/models/<name>.yaml, every value checked.

    Args:
        files: whether the checkpoint, prompts, images and networks that it names must be there.

    Raises:
        SpecError: with file, key, value and what is allowed.
    """
    path = MODELS / f"{name}.yaml"
    record = {"family": AUTO} | read_record(name)
    check(record, "model.schema.yaml", str(path))
    for part, key in PATHS:
        if isinstance(value := record[part].get(key), str):
            record[part][key] = home(value)
    try:
        check_values(record)
        record["family"] = families.named(Source(**record["source"]), record["family"])
    except (SpecError, registry.UnknownEntry) as error:
        raise SpecError(f"{path}: {error}") from None
    if files and (problem := missing(needs_of(str(path), record))):
        raise SpecError(problem)
    return record


def check_values(record: Mapping[str, Any]) -> None:
    """Raise SpecError, or UnknownEntry, where a value of a model file is not allowed whatever lies on this machine."""
    models.check(record["family"], "family")
    source = made(Source, record["source"], "source")
    require(
        source.offload != "sequential", "source.offload", "sequential", "one that prune can run under; none or model"
    )
    ok = source.offload == "none" or not source.device.startswith("cpu")
    require(ok, "source.offload", source.offload, f"free with device: {source.device}; none")
    devices.check(record["evaluation"].get("device", "cpu"), "evaluation.device")
    made(Sampling, record["sampling"], "sampling")
    try:
        sampling_of(record)
    except SpecError as error:
        raise SpecError(f"sampling.{error}") from None


def check_paper(config: Mapping[str, Any]) -> None:
    """Raise SpecError where `paper` names a table of which no values are known."""
    if "paper" in config:
        with PAPER.open(newline="", encoding="utf-8") as file:
            known = sorted({int(row["table"]) for row in csv.DictReader(file)})
        require(
            config["paper"] in known, "paper", config["paper"], f"a table of {PAPER} ({', '.join(map(str, known))})"
        )


def read_sweep(config: Mapping[str, Any], files: bool = True) -> Sweep:
    """Check a whole configuration.

    Args:
        files: whether, at full scale, all that the sweep needs must be on this machine.

    Raises:
        SpecError: with the key, the value and what is allowed; or a list of all that is missing, one per line.
    """
    check(config, "config.schema.yaml", "config")
    check_paper(config)
    records = {name: read_model(name, files=False) for name in models_of(config)}
    cells = grid(config, records)
    texts: dict[str, dict[str, dict[str, Any]]] = {axis: {} for axis in Overrides._fields}
    for cell, overrides in cells.items():
        for axis, values in overrides._asdict().items():
            texts[axis][getattr(cell, axis)] = values
        if (pruned := cell.pruned_as()) != cell:
            texts["sampling"][pruned.sampling] = {}
            texts["calibration"][pruned.calibration] = {
                key: value for key, value in overrides.calibration.items() if key != "sampling"
            }
    if is_tiny(config):
        records = {name: shrunk_model(name, model, results_of(config)) for name, model in records.items()}
        texts = shrunk(texts)
    if "count" in config:
        for record in records.values():
            record["evaluation"]["count"] = config["count"]
    sweep = Sweep(list(cells), records, **texts)
    if files and not is_tiny(config) and (problem := missing(needs(sweep, config["pruning"]))):
        raise SpecError(problem)
    return sweep


def needs(sweep: Sweep, pruning: Mapping[str, Any]) -> Iterator[Need]:
    """What a sweep needs on this machine at full scale, each looked for.

    Args:
        pruning: of the config; the layers that it names must be there, too.
    """
    for name, model in sweep.models.items():
        yield from needs_of(f"{MODELS / name}.yaml", model)
    asked = dict.fromkeys((cell.model, cell.calibration) for cell in sweep.cells)
    for name, text in asked:
        own, override = sweep.models[name], sweep.calibration[text]
        if override.keys() & {"prompts", "count"}:
            given = own["calibration"] | override
            yield prompts_need("config", "grid.calibration", given, own["evaluation"]["prompts"])
    for name, text in dict.fromkeys((cell.model, cell.options) for cell in sweep.cells):
        for key, options in (("pruning", pruning), ("grid.options", sweep.options[text])):
            yield from layers_needs(key, options, sweep.models[name])
