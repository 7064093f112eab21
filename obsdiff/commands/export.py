"""`obsdiff export`."""

from pathlib import Path

from obsdiff.commands import Source_
from obsdiff.storage.folders import EXPORT, require_free
from obsdiff.typed import require


def run(
    source: Source_,
    checkpoint: Path,
    out: Path,
    any_components: bool = False,
    max_shard_size: str | None = None,
) -> None:
    """Write a pruned pipeline as an ordinary diffusers folder, or its denoiser as one .safetensors file.

    Args:
        checkpoint: folder that `prune` wrote from the same --model.
        out: the folder, which from_pretrained opens without obsdiff; or a file ending in .safetensors, which
            from_single_file reads. An earlier export is replaced.
        any_components: check the denoiser alone, not the VAE, text encoders and the rest.
        max_shard_size: size from which a component's weights are split into files, such as 5GB; 10GB by default.
    """
    single = out.suffix == ".safetensors" and not out.is_dir()
    if single:
        require(
            max_shard_size is None, "max_shard_size", max_shard_size, "free with a single file as out; leave it out"
        )
    else:
        require_free(out, EXPORT)

    from obsdiff import export_pruned, load_pruned
    from obsdiff.checkpoints.exporting import (
        export_denoiser,
        opened_by,
        read_by,
        require_exportable,
        require_file,
        require_size,
    )
    from obsdiff.checkpoints.manifest import read_manifest
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline

    require_size(max_shard_size)
    if single:
        require_file(out)
    require_exportable(read_manifest(checkpoint))
    pipe = open_pipeline(source)
    manifest = load_pruned(pipe, checkpoint, identity_of_source(source, pipe), any_components)
    if single:
        export_denoiser(pipe, out, manifest)
        print(f"{out}: {read_by(pipe, out, source.model)}")
    else:
        export_pruned(pipe, out, manifest, max_shard_size)
        print(f"{out}: {opened_by(pipe, out)}")
