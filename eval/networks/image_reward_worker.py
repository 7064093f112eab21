"""ImageReward of images, in an environment of its own (envs/image-reward.yml): no module of this project.

JSON lines {"path", "caption"} on standard input → a JSON line an image, its score, on standard output. The first line
says what computed them: {"library", "transformers", "weights", "sha256"}. Nothing is downloaded: ImageReward's files
lie in IMAGE_REWARD_ROOT (~/.cache/ImageReward), and the tokenizer of bert-base-uncased in the hub's cache.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder's names would hide standard modules

import contextlib
import hashlib
import json
import os
from importlib import metadata
from pathlib import Path

NAME = "ImageReward-v1.0"


def version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def main(device: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    root = Path(os.environ.get("IMAGE_REWARD_ROOT") or "~/.cache/ImageReward").expanduser()
    weights, config = root / "ImageReward.pt", root / "med_config.json"
    for path in (weights, config):
        if not path.is_file():
            raise SystemExit(f"{path} is missing; run `hf download THUDM/ImageReward --local-dir {root}`")
    pairs = [json.loads(line) for line in sys.stdin]
    with contextlib.redirect_stdout(sys.stderr):  # it prints while it loads
        import ImageReward

        model = ImageReward.load(str(weights), device=device, med_config=str(config))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    about = {"library": f"image-reward {version('image-reward')}", "transformers": version("transformers")}
    print(json.dumps(about | {"weights": NAME, "sha256": digest}), flush=True)
    for pair in pairs:
        print(json.dumps(float(model.score(pair["caption"], pair["path"]))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
