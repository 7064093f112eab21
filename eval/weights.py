"""Where the networks lie that judge pictures; nothing is downloaded unless the config says so. No torch in here."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from obsdiff.errors import SpecError

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d"
"""first digits of the published weights' hash"""
LPIPS_URLS = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "squeeze": "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
"""torchvision's ImageNet weights of LPIPS' networks"""


def hub_file(url: str) -> Path:
    """Where torch.hub, and so torch-fidelity and torchvision, keep what they fetch."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints" / url.rpartition("/")[2]


def default_inception() -> Path:
    return hub_file(INCEPTION_URL)


def inception_weights(name: str) -> Path:
    """The weights that `fid_features` names; with `inception:download` they need not be there yet.

    Args:
        name: `inception` (torch-fidelity's default place), `inception:/path/to/weights`, or `inception:download`.

    Raises:
        SpecError: another name, or no such file, with what to do.
    """
    kind, _, place = name.partition(":")
    if kind != "inception":
        what = "inception, inception:/path/to/weights or inception:download; leave it out for the evaluator's features"
        raise SpecError(f"evaluation.fid_features: {name!r} is not {what}")
    path = Path(place).expanduser() if place not in ("", "download") else default_inception()
    if place != "download" and not path.is_file():
        raise SpecError(
            f"evaluation.fid_features: {name!r} finds no weights at {path}; put {INCEPTION_URL} there, name another "
            "file by inception:/path/to/weights, or say inception:download"
        )
    return path


def lpips_weights(name: str) -> Path:
    """The weights that `evaluation.lpips` names.

    Args:
        name: `alex`, `squeeze` or `vgg` (torchvision's default place), or `alex:/path/to/weights`.

    Raises:
        SpecError: another name, or no such file, with what to do.
    """
    network, _, place = name.partition(":")
    if network not in LPIPS_URLS:
        what = f"{', '.join(LPIPS_URLS)}, each with :/path/to/weights or without; leave it out for no LPIPS"
        raise SpecError(f"evaluation.lpips: {name!r} is not one of {what}")
    url = LPIPS_URLS[network]
    path = Path(place).expanduser() if place else hub_file(url)
    if not path.is_file():
        raise SpecError(
            f"evaluation.lpips: {name!r} finds no weights at {path}; put {url} there, name another file by "
            f"{network}:/path/to/weights, or leave the key out"
        )
    return path


def check_judges(evaluation: Mapping[str, Any]) -> None:
    """Raise SpecError where a file that a model file's `evaluation` names is not there."""
    evaluator = evaluation["evaluator"]
    architecture, _, weights = evaluator.partition(":")
    if "/" in weights and not Path(evaluator).is_dir() and not Path(weights).expanduser().is_file():
        raise SpecError(f"evaluation.evaluator: {weights!r}, the weights of {architecture}, is not a file")
    if "fid_features" in evaluation:
        inception_weights(evaluation["fid_features"])
    if "lpips" in evaluation:
        lpips_weights(evaluation["lpips"])
    python = evaluation.get("image_reward")
    if python is not None and shutil.which(python) is None:
        raise SpecError(
            f"evaluation.image_reward: {python!r} is no Python interpreter; make one by `conda env create -f "
            "envs/image-reward.yml` and give its bin/python, or leave the key out"
        )


def judge_files(evaluation: Mapping[str, Any]) -> list[str]:
    """The single files among the networks that a model file's `evaluation` names."""
    named = [Path(evaluation["evaluator"].partition(":")[2]).expanduser()]
    if "fid_features" in evaluation:
        named.append(inception_weights(evaluation["fid_features"]))
    if "lpips" in evaluation:
        named.append(lpips_weights(evaluation["lpips"]))
    return [str(path) for path in named if path.is_file()]
