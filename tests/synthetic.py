"""Measured cells and manifests made up, with an order that is known, and images to go with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.model_metrics import Deviation, MeasuredLayer
from eval.results import CellResult, Metric
from eval.sweep.cells import PLAIN, Cell, cell_hash
from obsdiff import PruneSpec
from obsdiff.checkpoints import manifest as manifests
from obsdiff.checkpoints.manifest import Manifest
from obsdiff.report import LayerReport, Report

LOSS = {"dense": 0.0, "sparsegpt": 0.1, "obs_diff": 0.1001, "wanda": 0.2, "random": 0.8}
"""of CLIP score at sparsity 1; it goes with the square of the sparsity"""
PROMPTS = 24
TITLES = {
    "clip_score": ("CLIP score", "cosine", True),
    "recall_at_1": ("R@1", "%", True),
    "cosine_to_dense": ("CLIP cosine to dense", "cosine", True),
    "psnr_to_dense": ("PSNR to dense", "dB", True),
    "fid": ("FID", "evaluator features", False),
    "kid": ("KID", "evaluator features", False),
    "layer_error": ("layer error", "relative", False),
    "speedup": ("speed-up", "×", True),
    "block_speedup": ("block speed-up", "×", True),
    "denoiser_ms": ("denoiser step", "ms", False),
    "nonzero_parameters": ("nonzero parameters", "M", None),
    "checkpoint_mb": ("file", "MB", None),
    "pruning_seconds": ("pruning time", "s", False),
    "pruning_memory": ("pruning memory", "MiB", False),
}


def cell_of(method: str, sparsity: float = 0.0, seed: int = 0, **more: str) -> Cell:
    weighting = "log_decrease" if method in ("obs_diff", "wanda") else "uniform"
    axes = {"model": "emoji-sd3", "pattern": "unstructured", "weighting": weighting, "packages": "4"}
    axes |= {"options": PLAIN, "sampling": PLAIN, "calibration": PLAIN}
    return Cell(**{**axes, **more, "method": method, "sparsity": f"{sparsity:.2f}", "seed": str(seed)})


def metric_of(name: str, given: Any, **more: Any) -> Metric:
    """A metric of TITLES, or of any other name.

    Args:
        given: an array is samples; a pair a value and its replicates; a number a value alone.
        more: other fields.
    """
    title, unit, higher = TITLES.get(name, (name.upper(), "u", not name.endswith(("_to_dense", "kid", "cmmd"))))
    about: dict[str, Any] = {"title": title, "unit": unit, "higher_is_better": higher}
    if isinstance(given, tuple):
        about |= {"value": float(given[0]), "replicates": np.asarray(given[1]).tolist()}
    elif isinstance(given, np.ndarray):
        about |= {"value": float(given.mean()), "samples": given.tolist()}
    else:
        about["value"] = float(given)
    return Metric(**{**about, **more})


def result_of(cell: Cell, metrics: dict[str, Any], prompts: int = PROMPTS, **more: Any) -> CellResult:
    """A measured cell.

    Args:
        metrics: name → metric, or what metric_of() takes.
        prompts: how many.
        more: fields of the result that differ.
    """
    spec = {"weighting": cell.weighting, "alpha_min": 0.8, "alpha_max": 1.2, "alphas": [], "sampling": {"steps": 5}}
    deviation: dict[str, Any] = {
        "blocks": ["transformer_blocks.0", "transformer_blocks.1"],
        "latents": [cell.amount**2] * 5,
    }
    fields: dict[str, Any] = {
        "cell": cell,
        "hash": cell_hash({"path": cell.path}),
        "provenance": {
            "spec": spec | {"prompts": "c43c"},
            "base": "e825",
            "versions": {"obsdiff": "0.1.0", "torch": "2.14.1"},
            "machine": {"device": "x86_64 CPU", "dtype": "float32"},
            "prompts": {"count": prompts, "sha256": "aa11"},
            "reference": {"folder": "zoo/emoji-data/reference", "count": 9, "sha256": "bb22"},
            "evaluator": {"name": "zoo/emoji-clip", "sha256": "1596"},
            "fid_features": None,
        },
        "prompts": [f"p{i}" for i in range(prompts)],
        "captions": [f"caption {i}" for i in range(prompts)],
        "metrics": {k: v if isinstance(v, Metric) else metric_of(k, v) for k, v in metrics.items()},
        "layers": [MeasuredLayer("l", error=0.1, sparsity=cell.amount)],
        "deviation": Deviation(**deviation, by_block=[[cell.amount**2 * (1 + i) for i in range(5)]] * 2),
    }
    return CellResult(**{**fields, **more})


def manifest_of(method: str = "magnitude", **more: Any) -> Manifest:
    """Of a checkpoint that pruned one layer, or of a dense one; `more` are fields that differ."""
    spec = PruneSpec(method=method, sparsity=0.5 if method != "dense" else 0.0, packages=1)
    layers = [LayerReport("l", (4, 4), 8, 0.2)] if method != "dense" else []
    report = Report(spec, {"pipeline": "b" * 64}, layers=layers, packages=[[layer.name] for layer in layers])
    return replace(manifests.manifest_of(report, "float32", "w" * 64, 10), **more)


def record_of(cell: Cell, intervals: bool = True) -> CellResult:
    """A cell whose score at a prompt is a common number less LOSS · sparsity², and a little noise of its own."""
    common = np.random.default_rng(int(cell.seed)).normal(0.8, 0.1, PROMPTS)
    own = np.random.default_rng([int(cell.seed), *cell.path.encode()]).normal(0, 1e-3, PROMPTS)
    s = cell.amount
    score = common - LOSS[cell.method] * s**2 + (own if s else 0)
    samples = {
        "clip_score": score,
        "recall_at_1": np.where(score > 0.7, 100.0, 0.0),
        "cosine_to_dense": 1 - LOSS[cell.method] * s**2 + np.zeros(PROMPTS),
        "psnr_to_dense": 60 - 40 * s * (0.5 + common) if s else np.full(PROMPTS, 60.0),
    }
    fid = 3 + 40 * LOSS[cell.method] * s**2
    spread = fid + np.random.default_rng([*cell.path.encode()]).normal(0, 0.1, 500)
    numbers = {"layer_error": s / 10, "speedup": 1.0 + s, "block_speedup": 1.25}
    numbers |= {"nonzero_parameters": 5.0 - 4 * s, "checkpoint_mb": 8.0 * s, "pruning_memory": 600.0 + s}
    numbers |= {"pruning_seconds": 20.0 if cell.method != "random" else 0.5}
    metrics = {k: v if intervals else v.mean() for k, v in samples.items()} | numbers
    metrics |= {"fid": (fid, spread) if intervals else fid}
    return result_of(cell, metrics | {"denoiser_ms": metric_of("denoiser_ms", 10.0 - s, quartiles=[9.0, 11.0])})


def sweep(
    methods: tuple[str, ...] = ("random", "wanda", "sparsegpt", "obs_diff"),
    sparsities: tuple[float, ...] = (0.3, 0.7),
    seeds: tuple[int, ...] = (0, 1),
    dense: bool = True,
    intervals: bool = True,
) -> list[CellResult]:
    cells = [cell_of("dense", seed=seed) for seed in seeds if dense]
    cells += [cell_of(m, s, seed) for m in methods for s in sparsities for seed in seeds]
    return [record_of(cell, intervals) for cell in cells]


def folders_of(records: list[CellResult], root: Path) -> list[Path]:
    """The records' cells on disk, with images of 4×4."""
    made = []
    for record in records:
        folder = root / "cells" / record.cell.path
        (folder / "images").mkdir(parents=True)
        shade = int(255 * record.cell.amount)
        for prompt in record.prompts:
            Image.new("RGB", (4, 4), (shade, 0, 255)).save(folder / "images" / f"{prompt}.png")
        made.append(folder)
    return made
