"""`obsdiff export`."""

from pathlib import Path

from obsdiff.commands import Source_
from obsdiff.storage.folders import EXPORT, require_free


def run(
    source: Source_,
    checkpoint: Path,
    out: Path,
    any_components: bool = False,
    max_shard_size: str | None = None,
) -> None:
    """Write a pruned pipeline as an ordinary diffusers folder, which from_pretrained opens without obsdiff.

    Args:
        checkpoint: folder that `prune` wrote from the same --model.
        out: the diffusers folder; an earlier export is replaced.
        any_components: check the denoiser alone, not the VAE, text encoders and the rest.
        max_shard_size: size from which a component's weights are split into files, such as 5GB; 10GB by default.
    """
    require_free(out, EXPORT)

    from obsdiff import export_pruned, load_pruned
    from obsdiff.checkpoints.exporting import opened_by, require_exportable, require_size
    from obsdiff.checkpoints.manifest import read_manifest
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline

    require_size(max_shard_size)
    require_exportable(read_manifest(checkpoint))
    pipe = open_pipeline(source)
    manifest = load_pruned(pipe, checkpoint, identity_of_source(source, pipe), any_components)
    export_pruned(pipe, out, manifest, max_shard_size)
    print(f"{out}: {opened_by(pipe, out)}")
