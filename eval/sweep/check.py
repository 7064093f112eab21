"""Whether a sweep can run on this machine: every thing that it needs, one per line, with sizes where they are known."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.network_weights import INCEPTION_URL, JUDGES, LPIPS_URLS
from eval.sweep.cells import Cell
from eval.sweep.config import Sweep, is_tiny, needs, read_model, read_sweep, results_of
from eval.sweep.grid import models_of
from eval.sweep.needs import Need, once
from obsdiff.pipelines import families
from obsdiff.pipelines.sources import component_files, shipped
from obsdiff.source import Source

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PNG_BYTES = 1.7
"""per pixel of a photograph-like image"""
DOWNLOADS = {
    "Train_GCC-training.tsv": "0.5 GB",
    "captions_val2014.json": "0.25 GB",
    "val2014": "6 GB",
    INCEPTION_URL.rpartition("/")[2]: "0.09 GB",
    LPIPS_URLS["alex"].rpartition("/")[2]: "0.23 GB",
    LPIPS_URLS["squeeze"].rpartition("/")[2]: "5 MB",
    LPIPS_URLS["vgg"].rpartition("/")[2]: "0.53 GB",
}
"""file or folder → size of its download"""


@dataclass(frozen=True)
class Item:
    """A line of the list."""

    ok: bool
    text: str


def items(config: Mapping[str, Any]) -> Iterator[Item]:
    """Everything that a sweep needs.

    Raises:
        SpecError: a value of the config or of a model file is not allowed, so that nothing can be looked for.
    """
    sweep = read_sweep(config, files=False)
    yield Item(True, f"config: sweep {config['name']!r}, {len(sweep.cells)} cells of {', '.join(sweep.models)}")
    if is_tiny(config):
        names = models_of(config)
        spared = sorted({place for name in names for place in places(read_model(name, files=False))})
        yield Item(True, f"scale tiny: random models and the zoo's data; not needed: {', '.join(spared)}")
    else:
        for found in once(needs(sweep, config["pruning"])):
            yield item_of(found, sweep)
        yield from device_items(sweep)
    yield disk_item(config, sweep)


def places(model: Mapping[str, Any]) -> Iterator[str]:
    """What a model file names that need not be here at tiny scale."""
    yield from (model["source"][key] for key in ("model", "single_file") if key in model["source"])
    yield from (model[part]["prompts"] for part in ("calibration", "evaluation"))
    yield from (model["evaluation"][key] for key in ("reference", *JUDGES) if key in model["evaluation"])


def item_of(found: Need, sweep: Sweep) -> Item:
    if found.problem is None:
        return Item(True, found.text)
    size = checkpoint_size(found, sweep) or next((s for n, s in DOWNLOADS.items() if n in found.problem), None)
    return Item(False, found.text + (f" (about {size})" if size else ""))


def checkpoint_size(found: Need, sweep: Sweep) -> str | None:
    """Of a checkpoint whose parameters are known (obsdiff/facts), in the dtype that the model file says."""
    model = next((m for m in sweep.models.values() if m["source"]["model"] == found.value), None)
    if found.key != "source.model" or model is None:
        return None
    source = Source(**model["source"])
    total = sum(count for name, count in parameters(source).items() if name not in source.without)
    return f"{total * BYTES[source.dtype] / GIB:.1f} GiB in {source.dtype}" if total else None


def parameters(source: Source) -> dict[str, int]:
    """Component → parameters of a published checkpoint; nothing of others."""
    return dict(shipped(source).get("parameters", {}))


def device_items(sweep: Sweep) -> Iterator[Item]:
    """Every torch device that a model or the networks that judge are put on."""
    devices = {m[part].get("device", "cpu") for m in sweep.models.values() for part in ("source", "evaluation")}
    for device in sorted(devices):
        problem = device_problem(device)
        yield Item(problem is None, f"device: {device}" + (f" {problem}" if problem else ""))


def device_problem(device: str) -> str | None:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return None
    import torch

    if not getattr(torch, kind).is_available():
        return "is not on this machine; run this command where the jobs will run, or say device: cpu"
    count = getattr(torch, kind).device_count()
    return None if int(index or 0) < count else f"is not there; this machine has {count} of its kind"


def disk_item(config: Mapping[str, Any], sweep: Sweep) -> Item:
    """The free bytes of the results' disk beside an estimate of what the cells that are not done will write."""
    results = Path(results_of(config))
    asked = sum(cell_bytes(cell, sweep, results / "cells" / cell.path) for cell in sweep.cells)
    place = next(p for p in (results, *results.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    text = f"disk: {results}: about {asked / GIB:.1f} GiB to be written, {free / GIB:.1f} GiB free"
    return Item(asked < free, text if asked < free else f"{text}; make room, or name another folder by `results`")


def cell_bytes(cell: Cell, sweep: Sweep, folder: Path) -> float:
    """Images and checkpoint of a cell, as far as they are not there."""
    model = sweep.models[cell.model]
    size = 0.0
    if not (folder / "images" / "manifest.json").is_file():
        sampling = model["sampling"] | sweep.sampling[cell.sampling]
        pixels = (sampling.get("height") or 1024) * (sampling.get("width") or 1024)
        size += model["evaluation"]["count"] * pixels * PNG_BYTES
    if cell.method != "dense" and not (folder / "checkpoint" / "manifest.json").is_file():
        source = Source(**model["source"])
        size += denoiser_bytes(model["family"], source) * (1 - float(cell.sparsity) + 1 / (8 * BYTES[source.dtype]))
    return size


def denoiser_bytes(family: str, source: Source) -> int:
    """Of the published checkpoint, or of the files that are here."""
    name = families.traits(source, family).denoiser
    if known := parameters(source).get(name):
        return known * BYTES[source.dtype]
    files = component_files(source).get(name, []) if Path(source.model).is_dir() else []
    return sum(path.stat().st_size for path in files if re.search(r"\.(safetensors|bin)$", path.name))
