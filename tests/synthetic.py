"""metrics.json records made up, with an order that is known, and pictures to go with them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.sweep.cells import PLAIN, Cell, axes_of, cell_hash

LOSS = {"dense": 0.0, "sparsegpt": 0.1, "obs_diff": 0.1001, "wanda": 0.2, "random": 0.8}
"""of CLIP score at sparsity 1; it goes with the square of the sparsity"""
PROMPTS = 24
TITLES = {
    "clip_score": ("CLIP score", "cosine", True),
    "recall_at_1": ("R@1", "%", True),
    "cosine_to_dense": ("CLIP cosine to dense", "cosine", True),
    "psnr_to_dense": ("PSNR to dense", "dB", True),
    "fid": ("FID", "evaluator features", False),
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


def record_of(cell: Cell, intervals: bool = True) -> dict[str, Any]:
    """A cell whose score at a prompt is a common number less LOSS · sparsity², and a little noise of its own."""
    common = np.random.default_rng(int(cell.seed)).normal(0.8, 0.1, PROMPTS)
    own = np.random.default_rng([int(cell.seed), *cell.path.encode()]).normal(0, 1e-3, PROMPTS)
    s = float(cell.sparsity)
    score = common - LOSS[cell.method] * s**2 + (own if s else 0)
    samples = {
        "clip_score": score,
        "recall_at_1": 100 * (score > 0.7),
        "cosine_to_dense": 1 - LOSS[cell.method] * s**2 + np.zeros(PROMPTS),
        "psnr_to_dense": 60 - 40 * s * (0.5 + common) if s else np.full(PROMPTS, 60.0),
    }
    fid = 3 + 40 * LOSS[cell.method] * s**2
    single = {"fid": fid, "layer_error": s / 10, "speedup": 1.0 + s, "block_speedup": 1.25, "denoiser_ms": 10.0 - s}
    single |= {"nonzero_parameters": 5.0 - 4 * s, "checkpoint_mb": 8.0 * s, "pruning_memory": 600.0 + s}
    single |= {"pruning_seconds": 20.0 if cell.method != "random" else 0.5}
    metrics = {k: about(k) | {"value": float(v.mean()), "samples": v.tolist()} for k, v in samples.items()}
    metrics |= {k: about(k) | {"value": v} for k, v in single.items()}
    metrics["fid"]["replicates"] = (fid + np.random.default_rng([*cell.path.encode()]).normal(0, 0.1, 500)).tolist()
    metrics["denoiser_ms"]["quartiles"] = [9.0, 11.0]
    if not intervals:
        for metric in metrics.values():
            metric.pop("samples", None), metric.pop("replicates", None)
    spec = {"weighting": cell.weighting, "alpha_min": 0.8, "alpha_max": 1.2, "alphas": [], "sampling": {"steps": 5}}
    deviation = {"blocks": ["transformer_blocks.0", "transformer_blocks.1"], "latents": [s**2] * 5}
    return {
        "cell": axes_of(cell),
        "hash": cell_hash({"path": cell.path}),
        "provenance": {
            "spec": spec | {"prompts": "c43c"},
            "base": "e825",
            "versions": {"obsdiff": "0.1.0", "torch": "2.14.1"},
            "machine": {"device": "x86_64 CPU", "dtype": "float32"},
            "prompts": {"count": PROMPTS, "sha256": "aa11"},
            "reference": {"folder": "zoo/emoji-data/reference", "count": 9, "sha256": "bb22"},
            "evaluator": {"name": "zoo/emoji-clip", "sha256": "1596"},
            "fid_features": None,
        },
        "prompts": [f"p{i}" for i in range(PROMPTS)],
        "captions": [f"caption {i}" for i in range(PROMPTS)],
        "metrics": metrics,
        "layers": [{"name": "l", "error": 0.1, "sparsity": s}],
        "deviation": deviation | {"by_block": [[s**2 * (1 + i) for i in range(5)]] * 2},
    }


def about(name: str) -> dict[str, Any]:
    return dict(zip(("title", "unit", "higher_is_better"), TITLES[name], strict=True))


def sweep(
    methods: tuple[str, ...] = ("random", "wanda", "sparsegpt", "obs_diff"),
    sparsities: tuple[float, ...] = (0.3, 0.7),
    seeds: tuple[int, ...] = (0, 1),
    dense: bool = True,
    intervals: bool = True,
) -> list[dict[str, Any]]:
    cells = [cell_of("dense", seed=seed) for seed in seeds if dense]
    cells += [cell_of(m, s, seed) for m in methods for s in sparsities for seed in seeds]
    return [record_of(cell, intervals) for cell in cells]


def folders_of(records: list[dict[str, Any]], root: Path) -> list[Path]:
    """The records' cells on disk, with pictures of 4×4."""
    from eval.sweep.cells import cell_path

    made = []
    for record in records:
        folder = root / "cells" / cell_path(record)
        (folder / "images").mkdir(parents=True)
        shade = int(255 * record["cell"]["sparsity"])
        for prompt in record["prompts"]:
            Image.new("RGB", (4, 4), (shade, 0, 255)).save(folder / "images" / f"{prompt}.png")
        made.append(folder)
    return made
