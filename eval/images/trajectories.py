"""Prompts in batches through a staged pipeline, encoded before the denoiser comes, latents never decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from obsdiff import models
from obsdiff.captions.prompts import Prompt
from obsdiff.sampling import Sampling, batched, run_pipeline


@dataclass(frozen=True)
class Batch:
    """Prompts that are sampled together.

    Attributes:
        embeds: keyword arguments of the pipeline's call, one row per prompt.
        ids: the prompts', of which their noise is made.
    """

    embeds: dict[str, Tensor]
    ids: tuple[str, ...]

    def sample(self, pipe: Any, sampling: Sampling, seed: int, callback: Callable[..., Any] | None = None) -> None:
        """Run the pipeline to the last latents.

        Args:
            callback: as diffusers' callback_on_step_end.
        """
        run_pipeline(pipe, self.embeds, sampling, self.ids, seed, callback=callback)


def encoded(pipe: Any, prompts: Sequence[Prompt], sampling: Sampling) -> list[Batch]:
    """The prompts in batches of the sampling's size."""
    encode = models.family_of(pipe).encode
    parts = [prompts[rows] for rows in batched(len(prompts), sampling.batch_size)]
    return [Batch(encode(pipe, [p.caption for p in part], sampling), tuple(p.id for p in part)) for part in parts]
