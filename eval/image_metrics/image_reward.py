"""ImageReward (Xu et al. 2023) of an image and its caption, averaged, by an interpreter of its own environment.

image-reward 1.5 does not import beside transformers 5, so eval/networks/image_reward_worker.py runs in the environment
of envs/image-reward.yml, which the model file names (`evaluation.image_reward`).
"""

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval.image_metrics import Images, Traits, Value
from obsdiff.errors import SpecError

TRAITS = Traits(
    title="ImageReward",
    unit="reward",
    higher_is_better=True,
    per="prompt",
    library="image-reward",
    reads=("captions",),
    needs="image_reward",
    order=5,
)
WORKER = Path(__file__).parents[1] / "networks" / "image_reward_worker.py"


def compute(images: Images) -> Value:
    _, scores = rewards(images)
    return sum(scores) / len(scores), scores


def made_by(images: Images) -> dict[str, Any]:
    return rewards(images)[0]


def rewards(images: Images) -> tuple[dict[str, Any], list[float]]:
    """What computed the scores, and a score an image."""
    pairs = zip(images.files.paths, images.texts, strict=True)
    lines = "".join(json.dumps({"path": str(path.resolve()), "caption": text}) + "\n" for path, text in pairs)
    about, *scores = answers(images.judges["image_reward"], images.device, lines)
    return about, scores


@lru_cache(maxsize=1)
def answers(python: str, device: str, lines: str) -> tuple[Any, ...]:
    """The worker's answers, run once for the same input."""
    try:
        done = subprocess.run([python, str(WORKER), device], input=lines, capture_output=True, text=True)
        found = [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    except (OSError, ValueError) as error:
        found, why = [], str(error)
    if len(found) != 1 + lines.count("\n"):
        raise SpecError(
            f"evaluation.image_reward: {python!r} gave no scores ({why}); make its environment by `conda env create "
            "-f envs/image-reward.yml`, which says what to download, or leave the key out"
        )
    return tuple(found)
