"""One-shot pruning of text-to-image diffusion models with OBS-Diff and its peers (arXiv 2510.06751).

The names below import on first use, so that `import obsdiff` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obsdiff.calibration.sharing import calibrate
    from obsdiff.checkpoints.checkpoint import load_pruned, save_pruned
    from obsdiff.checkpoints.exporting import export_denoiser, export_pruned
    from obsdiff.errors import CheckpointError, LayerError, SpecError
    from obsdiff.pipelines.loading import load_pipeline
    from obsdiff.planning.plan import Plan, plan
    from obsdiff.pruning import prune
    from obsdiff.report import Report
    from obsdiff.sampling import Sampling
    from obsdiff.source import Source
    from obsdiff.spec import PruneSpec

_HOME = {
    "PruneSpec": "spec",
    "Sampling": "sampling",
    "Source": "source",
    "CheckpointError": "errors",
    "LayerError": "errors",
    "SpecError": "errors",
    "Report": "report",
    "Plan": "planning.plan",
    "plan": "planning.plan",
    "prune": "pruning",
    "calibrate": "calibration.sharing",
    "save_pruned": "checkpoints.checkpoint",
    "load_pruned": "checkpoints.checkpoint",
    "export_denoiser": "checkpoints.exporting",
    "export_pruned": "checkpoints.exporting",
    "load_pipeline": "pipelines.loading",
}
__all__ = [
    "CheckpointError",
    "LayerError",
    "Plan",
    "PruneSpec",
    "Report",
    "Sampling",
    "Source",
    "SpecError",
    "calibrate",
    "export_denoiser",
    "export_pruned",
    "load_pipeline",
    "load_pruned",
    "plan",
    "prune",
    "save_pruned",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'obsdiff' has no attribute {name!r}")
    return getattr(import_module(f"obsdiff.{_HOME[name]}"), name)
