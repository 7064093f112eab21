"""`python -m eval measure`."""

from pathlib import Path

from eval.sweep.pairing import Reference
from obsdiff import devices
from obsdiff.jobs.leases import lease


def run(
    checkpoint: Path,
    profile: Path,
    images: Path,
    dense: Path,
    reference: Path,
    evaluator: str,
    prompts_file: Path,
    cache: Path,
    out: Path,
    latency: Path | None = None,
    fid_features: str | None = None,
    judges: dict[str, str] | None = None,
    fid_references: tuple[Reference, ...] = (),
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """All metrics of a cell → its metrics.json.

    Args:
        dense: images of the dense model from the same prompts and seed.
        reference: folder of real images.
        evaluator: open_clip folder, or architecture:weights.
        cache: folder of cached features.
        latency: the cell's timings; left out of one that stands with the dense model (eval/sweep/clocked.py).
        fid_features: network of FID and KID: inception, inception:/path/to/weights, or inception:download; by
            default the evaluator.
        judges: key of a model file's `evaluation` that a metric needs (lpips, image_reward, pick_score, hps, clip_iqa),
            and what it names there; metrics without theirs are not measured.
        fid_references: other sets of real images that FID is measured against too: cropped or resized to the generated
            images' size first, or those of the prompts alone.
        device: torch device of the networks that judge.
    """
    # before anything that could look for a GPU is imported
    lease(device)
    devices.require(device)

    import torch

    from eval.loading import drawn_images, load_images
    from eval.measure import measure as compute
    from eval.model_metrics import Model, Profile
    from eval.networks.features import Evaluator
    from eval.networks.inception import Inception
    from obsdiff.captions.prompts import read_prompts
    from obsdiff.checkpoints.manifest import read_manifest
    from obsdiff.storage.files import read_json

    torch.set_num_threads(threads)
    judge, chosen = Evaluator(evaluator, cache, device), read_prompts(prompts_file)
    inception = Inception(fid_features, cache, device) if fid_features else None
    own, files, dense_files = drawn_images(images, dense, chosen)
    pictures = load_images(files, dense_files, reference, chosen, judge, inception, judges, fid_references)
    model = Model(read_manifest(checkpoint), Profile.of(read_json(profile)), read_json(latency) if latency else {})
    provenance = {
        "pictures": own.identity,
        "prompts": pictures.about["captions"],
        "evaluator": {"name": evaluator, "sha256": judge.hash},
        "fid_features": {"name": inception.name, "sha256": inception.weights} if inception else None,
        "reference": {k: v for k, v in pictures.about["reference"].items() if k != "passed_over"},
    }
    compute(out.parent, pictures, model, chosen, provenance, own.faults()).write(out)
