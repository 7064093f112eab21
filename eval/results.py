"""What was measured of one cell: the content of its metrics.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from eval.model_metrics import Deviation, MeasuredLayer
from eval.sweep.cells import AXES, Cell, axes_of, cell_of_axes
from obsdiff.errors import SpecError
from obsdiff.storage.files import DamagedFile, read_json, write_json

REQUIRED: dict[str, type] = {
    "cell": dict,
    "hash": str,
    "provenance": dict,
    "prompts": list,
    "captions": list,
    "metrics": dict,
    "layers": list,
}
"""keys of every metrics.json"""
AGAIN = "remove it and run the sweep again, which measures the cell anew"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of a cell.

    Attributes:
        title, unit: for people.
        higher_is_better: its direction; None if neither is better as such.
        made_by: library, version, network and inputs that computed it.
        samples: a number per prompt; None of a metric that has none.
        replicates: bootstrap replicates of a metric of the whole set; None of others.
        quartiles: 25th and 75th percentile of what was timed; None of others.
        warning: why the value is to be read with care.
    """

    value: float
    title: str
    unit: str
    higher_is_better: bool | None
    made_by: dict[str, Any] = field(default_factory=dict)
    samples: list[float] | None = None
    replicates: list[float] | None = None
    quartiles: list[float] | None = None
    warning: str | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Metric":
        return cls(**{f.name: record[f.name] for f in fields(cls) if f.name in record})

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v is not None or k == "higher_is_better"}


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A measured cell.

    Attributes:
        hash: of all that defines the cell.
        provenance: what the numbers are of: spec, hashes of weights and images, networks, versions, machine.
        prompts: ids, in the order of samples.
        captions: their texts.
        metrics: name → metric, in the order in which they were measured.
        layers: in order of execution.
        latency: whose timings the cell has (`of`: cell or dense), threads, and what zeros took (`zeros`).
        images: how many images have each fault.
        reach: what share of the denoiser can be pruned, in words.
    """

    cell: Cell
    hash: str
    provenance: dict[str, Any]
    prompts: list[str]
    captions: list[str]
    metrics: dict[str, Metric]
    layers: list[MeasuredLayer]
    deviation: Deviation | None = None
    latency: dict[str, Any] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    reach: str = ""

    @property
    def spec(self) -> dict[str, Any]:
        """The canonical spec of the pruning run."""
        found: dict[str, Any] = self.provenance["spec"]
        return found

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "CellResult":
        """From the content of a metrics.json.

        Raises:
            SpecError: it is not of a cell; the message begins with what is wrong.
        """
        if (lacking := missing(record)) is not None:
            raise SpecError(f"is not of a cell, it {lacking}; {AGAIN}")
        try:
            deviation = record.get("deviation")
            return cls(
                cell=cell_of_axes(record["cell"]),
                metrics={name: Metric.of(metric) for name, metric in record["metrics"].items()},
                layers=[MeasuredLayer(**layer) for layer in record["layers"]],
                deviation=Deviation(**deviation) if deviation else None,
                images=record.get("pictures", {}),
                latency=record.get("latency", {}),
                reach=record.get("reach", ""),
                **{key: record[key] for key in ("hash", "provenance", "prompts", "captions")},
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise SpecError(f"is not of a cell ({type(error).__name__}: {error}); {AGAIN}") from None

    @classmethod
    def read(cls, path: Path) -> "CellResult":
        """A metrics.json file; SpecError, by name, where it is missing, damaged or not of a cell."""
        try:
            record = read_json(path)
        except FileNotFoundError:
            raise SpecError(f"metrics: {str(path)!r} is not a file; measure the cell first") from None
        except (OSError, DamagedFile) as error:
            raise SpecError(f"metrics: {error}; {AGAIN}") from None
        try:
            return cls.of(record)
        except SpecError as error:
            raise SpecError(f"metrics: {str(path)!r} {error}") from None

    def as_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        record = {key: getattr(self, key) for key in ("hash", "provenance", "prompts", "captions", "latency")}
        record |= {"cell": axes_of(self.cell), "metrics": {name: m.as_dict() for name, m in self.metrics.items()}}
        record |= {"layers": [vars(layer) for layer in self.layers], "pictures": self.images, "reach": self.reach}
        return record | ({"deviation": asdict(self.deviation)} if self.deviation else {})

    def write(self, path: Path) -> None:
        write_record(path, self.as_dict())


def missing(record: Any) -> str | None:
    """What a metrics.json lacks to be of a cell, in words; None where it has all."""
    if not isinstance(record, Mapping):
        return f"is a {type(record).__name__}"
    names = [key for key, kind in REQUIRED.items() if not isinstance(record.get(key), kind)]
    if not names:
        names = [f"cell.{axis}" for axis in AXES if axis not in record["cell"]]
        names += [f"metrics.{k}" for k, m in record["metrics"].items() if not isinstance(m, dict) or "value" not in m]
    return f"has no {names[0]}" if names else None


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write one of a cell's JSON files; SpecError where a number is not finite, by its key."""
    try:
        write_json(path, record, indent=1, sort_keys=True)
    except ValueError as error:
        raise SpecError(str(error)) from None
