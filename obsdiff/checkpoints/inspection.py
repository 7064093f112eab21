"""A pruned checkpoint's manifest, for people."""

from pathlib import Path

from obsdiff.checkpoints.manifest import Manifest
from obsdiff.targets import describe_reach


def describe(folder: Path, manifest: Manifest) -> str:
    """A header, one line per layer, one per site."""
    spec, seconds = manifest.spec, manifest.seconds
    lines = [
        f"{folder}: {spec['method']}, {spec['pattern']}, sparsity {manifest.sparsity:.4f} (asked {spec['sparsity']:g})",
        f"made in {seconds['total']:.1f} s, {len(manifest.packages)} packages, "
        f"{manifest.statistics_bytes / 2**20:.1f} MiB of statistics at most, "
        + ", ".join(f"{name} {v}" for name, v in manifest.versions.items()),
        describe_reach(manifest.reach, manifest.left_dense),
        "",
    ]
    width = max((len(layer.name) for layer in manifest.layers), default=5)
    lines.append(f"{'layer':{width}}  {'shape':>11}  sparsity  weight error  calibration error  damping")
    for layer in manifest.layers:
        rows, columns = layer.shape
        shape = f"{rows}×{columns}"
        error, damping = layer.calibration_error, layer.damping
        lines.append(
            f"{layer.name:{width}}  {shape:>11}  {layer.removed / (rows * columns):8.4f}  "
            f"{layer.weight_error:12.6f}  {'-' if error is None else format(error, '.6f'):>17}  "
            f"{'-' if damping is None else format(damping, 'g'):>7}" + ("  bias moved" if layer.bias_moved else "")
        )
    for site in manifest.sites:
        lines.append(f"{site.layer}: {len(site.kept)} of {site.groups} {site.kind} stay")
    return "\n".join(lines)
