"""Where the networks lie that judge images; nothing is downloaded unless the config says so. No torch in here."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from obsdiff.errors import SpecError
from obsdiff.pipelines.sources import files_below

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
HUB_NAME = "open_clip_pytorch_model.bin"
"""of an open_clip repository's weights in pickle form"""


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


def check_evaluator(name: str, key: str = "evaluator") -> None:
    """Raise SpecError unless an open_clip folder is complete, or the weights of architecture:weights are here.

    Args:
        key: of a model file's `evaluation`, for errors.
    """
    if Path(name).is_dir():
        check_folder(Path(name), key)
        return
    architecture, colon, weights = name.partition(":")
    if not colon:
        raise SpecError(f"evaluation.{key}: {name!r} is neither an open_clip folder nor architecture:weights")
    if "/" in weights and not Path(weights).expanduser().is_file():
        raise SpecError(f"evaluation.{key}: {weights!r}, the weights of {architecture}, is not a file")
    evaluator_weights(architecture, weights, key)


def check_folder(folder: Path, key: str = "evaluator") -> None:
    """Raise SpecError unless an open_clip folder holds configuration, weights and the tokenizer that it names."""
    what = f"evaluation.{key}: {str(folder)!r}"
    try:
        text = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
        own_tokenizer = text.get("hf_tokenizer_name") is not None
    except OSError:
        raise SpecError(f"{what} has no open_clip_config.json; give a folder that open_clip saved") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"{what} has an open_clip_config.json that cannot be used ({error!r}); save it again") from None
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise SpecError(f"{what} holds no weights; save the model again")
    if own_tokenizer and not any(folder.glob("tokenizer.json")) and not any(folder.glob("vocab*")):
        raise SpecError(f"{what} holds no tokenizer (tokenizer.json), which its configuration names; save it again")


def published() -> tuple[list[str], ModuleType]:
    """open_clip's architectures and its module of published weights; its package, which imports torch, stays out."""
    if loaded := sys.modules.get("open_clip"):
        return loaded.list_models(), loaded.pretrained
    found = find_spec("open_clip")
    assert found is not None and found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0])
    package = ModuleType("open_clip_names")
    package.__path__ = [str(folder)]
    sys.modules.setdefault(package.__name__, package)
    names = sorted(path.stem for path in (folder / "model_configs").glob("*.json"))
    with patch.dict(sys.modules, {"safetensors.torch": None}):  # an optional import of that module
        return names, import_module("open_clip_names.pretrained")


def evaluator_weights(architecture: str, weights: str, key: str = "evaluator") -> Path:
    """The file of open_clip weights: a path, or a tag whose file the hub's cache holds; nothing is downloaded.

    Raises:
        SpecError: it is not on this machine, with what to do.
    """
    names, pretrained = published()
    if architecture not in names:
        near = get_close_matches(architecture, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SpecError(f"evaluation.{key}: {architecture!r} is not an architecture of open_clip{hint}")
    if weights and Path(weights).expanduser().is_file():
        return Path(weights).expanduser()
    tags = pretrained.list_pretrained_tags_by_model(architecture)
    if weights not in tags:
        what = f"neither a file nor weights of {architecture} ({', '.join(tags)})"
        raise SpecError(f"evaluation.{key}: {weights!r} is {what}")
    from huggingface_hub import try_to_load_from_cache

    config = pretrained.get_pretrained_cfg(architecture, weights)
    repository, _, name = str(config.get("hf_hub", "")).rpartition("/")
    stems = [f"{Path(name).stem}.safetensors", name] if name else ["open_clip_model.safetensors", HUB_NAME]
    for stem in stems if repository else []:
        if isinstance(path := try_to_load_from_cache(repository, stem), str):
            return Path(path)
    get = f"run `hf download {repository}`, or " if repository else ""
    raise SpecError(
        f"evaluation.{key}: the weights {weights!r} of {architecture} are not on this machine; {get}give a file: "
        f"{architecture}:/path/to/weights"
    )


def check_judges(evaluation: Mapping[str, Any]) -> None:
    """Raise SpecError where a file that a model file's `evaluation` names is not there."""
    for key, check in JUDGES.items():
        if (value := evaluation.get(key)) is not None:
            check(value)


def check_image_reward(python: str) -> None:
    """Raise SpecError unless this is a program."""
    if shutil.which(python) is None:
        raise SpecError(
            f"evaluation.image_reward: {python!r} is not a Python interpreter; make one by `conda env create -f "
            "envs/image-reward.yml` and give its bin/python, or leave the key out"
        )


def clip_files(key: str, name: str) -> list[Path]:
    """The files of a CLIP model of transformers, sorted.

    Args:
        key: of a model file's `evaluation`, for errors.
        name: a folder with configuration, weights, tokenizer and processor.

    Raises:
        SpecError: it is not one, with what to do.
    """
    folder, what = Path(name).expanduser(), f"evaluation.{key}: {name!r}"
    get = f"give a folder that `hf download {CLIPS[key]} --local-dir FOLDER` filled, or leave the key out"
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{what} has no config.json of a transformers model ({error!r}); {get}") from None
    if kind != "clip":
        raise SpecError(f"{what} holds a model of type {kind!r}, not 'clip'; {get}")
    for needed, patterns in CLIP_FILES.items():
        if not any(found for pattern in patterns for found in folder.glob(pattern)):
            raise SpecError(f"{what} has no {needed} ({' or '.join(patterns)}); {get}")
    return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".txt", ".safetensors", ".bin"))


CLIP_FILES = {
    "weights": ("*.safetensors", "*.bin"),
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
}
"""what a folder of a CLIP model holds beside its configuration → names of files, one of which is there"""
CLIPS = {"pick_score": "yuvalkirstain/PickScore_v1", "clip_iqa": "openai/clip-vit-base-patch16"}
"""key of a model file's `evaluation` that names such a folder → the published one"""
JUDGES: dict[str, Callable[[str], Any]] = {
    "evaluator": check_evaluator,
    "fid_features": inception_weights,
    "lpips": lpips_weights,
    "image_reward": check_image_reward,
    "hps": partial(check_evaluator, key="hps"),
    **{key: partial(clip_files, key) for key in CLIPS},
}
"""key of a model file's `evaluation` → what raises SpecError where the network that it names is not here"""
OPTIONAL = tuple(key for key in JUDGES if key not in ("evaluator", "fid_features"))
"""those of metrics that are left out where the key is (Traits.needs of eval/image_metrics)"""


def judge_files(evaluation: Mapping[str, Any]) -> list[Path]:
    """The files of the networks that a model file's `evaluation` names, those of an evaluator's folder too."""
    named: list[Path] = []
    for key in ("evaluator", "hps", *CLIPS):
        if (name := evaluation.get(key)) is None:
            continue
        if key in CLIPS:
            named += clip_files(key, name)
        elif Path(name).is_dir():
            named += sorted(files_below(Path(name)))
        else:
            architecture, _, weights = name.partition(":")
            named.append(evaluator_weights(architecture, weights, key))
    inception = evaluation.get("fid_features", "inception:download")
    if not inception.endswith(":download"):  # those have one content, and are not here before the first job
        named.append(inception_weights(inception))
    if "lpips" in evaluation:
        named.append(lpips_weights(evaluation["lpips"]))
    return named
