"""What the image metrics of a cell see, read and encoded: its images, the dense model's, and the real ones."""

import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from eval.image_metrics import Images
from eval.images.image_files import ImageFiles
from eval.images.manifest import ImagesManifest, drawn, refuse_nothing
from eval.images.views import VIEWS, View
from eval.networks.features import Evaluator
from eval.networks.inception import Inception
from eval.sweep.pairing import paired
from obsdiff import onednn
from obsdiff.captions.prompts import Prompt, counts_text, prompts_hash
from obsdiff.devices import stated_precision


def drawn_images(images: Path, dense: Path, prompts: list[Prompt]) -> tuple[ImagesManifest, list[Path], list[Path]]:
    """A cell's manifest, its images and the dense model's in prompt order.

    Raises:
        SpecError: as drawn(), or all of the dense model's images show nothing.
    """
    own, base = drawn(images, prompts), drawn(dense, prompts)
    refuse_nothing(base, dense)
    return own, own.paths(images, prompts), base.paths(dense, prompts)


@stated_precision(onednn.SMALL)
def load_images(
    images: Sequence[Path],
    dense: Sequence[Path],
    reference: Path,
    prompts: list[Prompt],
    evaluator: Evaluator,
    inception: Inception | None = None,
    judges: Mapping[str, str] | None = None,
    references: Collection[str] = (),
) -> Images:
    """What image metrics see; FID and KID are on Inception-v3's features where given, else on the evaluator's.

    Args:
        images, dense: image files, one per prompt in their order.
        reference: folder of real images of any size and format, subfolders included.
        judges: as in Images.
        references: those of REFERENCES that FID is measured against, too.

    Raises:
        SpecError: an image cannot be read, or as paired().
    """
    own, base, real = ImageFiles.of(images), ImageFiles.of(dense), ImageFiles.of_folder(reference)
    if real.passed:
        say = f"reference: {len(real)} images; passed over {counts_text(real.passed)}"
        print(say, file=sys.stderr, flush=True)
    features, real_features = evaluator.images(own), evaluator.images(real)
    network: Evaluator | Inception = inception or evaluator
    if inception is None:
        scale = features.shape[1] ** 0.5  # unit features: a dimension then has variance 1 at most on average
        compared, real_compared = features * scale, real_features * scale
    else:
        scale = 1.0
        compared, real_compared = inception.images(own), inception.images(real)
    passed_over = {"passed_over": dict(real.passed)} if real.passed else {}
    about: dict[str, dict[str, Any]] = {
        "features": with_version(evaluator.about),
        "captions": {"count": len(prompts), "sha256": prompts_hash(prompts)},
        "fid_features": with_version(network.about),
        "reference": {"folder": str(reference), "count": len(real), "sha256": real.sha256} | passed_over,
        "dense": {"sha256": base.sha256},
    }
    others: dict[str, Tensor] = {}
    for kind in VIEWS:
        if kind in references:
            view = View(kind, own.open(own.paths[0]).size)
            others[kind] = network.images(real.seen_as(view)) * scale
            about[kind] = about["reference"] | {"seen": view.text}
    if "paired" in references:
        places = paired(real.paths, prompts)
        chosen = ImageFiles([real.paths[place] for place in places])
        others["paired"] = real_compared[places]
        about["paired"] = about["reference"] | {"count": len(chosen), "sha256": chosen.sha256}
    return Images(
        files=own,
        dense_files=base,
        texts=tuple(p.caption for p in prompts),
        features=features,
        dense_features=evaluator.images(base),
        captions=evaluator.captions([p.caption for p in prompts]),
        fid_features=compared,
        reference=real_compared,
        real_features=real_features,
        cache=evaluator.cache,
        references=others,
        about=about,
        judges=judges or {},
        device=evaluator.device,
    )


def with_version(about: dict[str, str]) -> dict[str, str]:
    return about | {"library": f"{about['library']} {version(about['library'])}"}
