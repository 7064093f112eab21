"""Images saved by a thread beside the device, so that the next batch is sampled while the last one is written."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from eval.images.manifest import Entry
from eval.images.opening import fault
from obsdiff.captions.prompts import Prompt
from obsdiff.storage.files import file_hash, replacing

WAITING = 2
"""batches that may wait to be written"""


class Saver:
    """One worker with a bounded queue; what fails in it is raised where the next batch is given, or at the end."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "saver")
        self.waiting: deque[Future[Any]] = deque()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for done in self.waiting:
                done.result()

    def give(self, work: Callable[..., Any], *values: Any) -> None:
        """Queue `work(*values)`; waits while WAITING others are queued."""
        while len(self.waiting) >= WAITING or (self.waiting and self.waiting[0].done()):
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(work, *values))


def save(folder: Path, prompt: Prompt, image: np.ndarray, flagged: bool) -> Entry:
    """Write one image as PNG.

    Args:
        image: (h, w, 3) float, 0 to 1, as the pipeline returns it for output_type='np'; NaN becomes black.
        flagged: what the pipeline's safety checker says.

    Returns:
        The manifest's entry.
    """
    finite = bool(np.isfinite(image).all())
    pixels = (np.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0) * 255).round().astype(np.uint8)
    path = folder / f"{prompt.file}.png"
    with replacing(path) as side:
        Image.fromarray(pixels).save(side, format="PNG")
    faults = [
        kind for kind in (fault(pixels), None if finite else "non_finite", "flagged" if flagged else None) if kind
    ]
    return {"file": path.name, "sha256": file_hash(path)} | ({"faults": faults} if faults else {})
