"""The dense model's sampling runs, kept as the denoiser's inputs: every call can be run again on the pruned model.

    batch-1.safetensors    the tensors of all calls for the first batch of prompts; what calls share is there once
    trajectory.json        which sampling it is of, the calls, and every file's hash; written after each batch

Only inputs are kept (latents, timesteps, texts), which are small beside what a call computes. Without a folder they
stay in CPU memory.
"""

import json
import time
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from obsdiff.calibration.calls import Call, Recorder, placed, unfold
from obsdiff.calibration.runs import Calibration, Steps, begun, blamed, check, summing, where
from obsdiff.errors import SpecError
from obsdiff.packages import Group
from obsdiff.report import peak_memory
from obsdiff.sampling import steps_of
from obsdiff.solver.statistics import Statistic
from obsdiff.spec import PruneSpec, stated
from obsdiff.storage.files import DamagedFile, made_anew, read_json, seal, sealed, write_json
from obsdiff.storage.tensors import read_tensors, write_tensors

RECORD = "trajectory.json"
GOLDEN = (5**0.5 - 1) / 2
FILES = "batch-*.safetensors"
FORMAT = 2
WAITING = "waiting-*.bin"
"""what stopped calls hold (see walking), of no use to a later run"""


class Trajectory:
    """Calls of the dense denoiser, batch of prompts by batch.

    Attributes:
        folder: where they are stored; None keeps them in memory.
        steps: turns of the sampling loop, of which the timestep weights are made; 0 before the first batch.
        spent, peak: seconds that the batches taken up took in the runs that made them, and those runs' peak memory.
    """

    def __init__(
        self, folder: Path | None, stamp: str, prompts: Sequence[slice], spec: PruneSpec, own: bool = True
    ) -> None:
        """What is there of this very sampling is taken up; other files are removed, damaged batches made again.

        Args:
            stamp: a hash of all that the calls depend on.
            prompts: the batches.
            own: whether files of another sampling may be removed.
        """
        self.folder, self.stamp, self.prompts, self.spec = folder, stamp, prompts, spec
        self.steps, self.spent, self.peak = 0, 0.0, 0
        self.batches: list[dict[str, Any]] = []
        self.memory: list[dict[str, Tensor]] = []
        self.loaded: tuple[int, dict[str, Tensor]] | None = None
        if folder is not None:
            self.restore(folder)
            for path in folder.glob(FILES) if own else ():
                if path not in {self.path(i) for i in range(len(self.batches))}:
                    path.unlink()

    def restore(self, folder: Path) -> None:
        try:
            record = read_json(folder / RECORD)
        except FileNotFoundError:
            record = None
        except DamagedFile as error:
            record = None
            made_anew(folder / RECORD, error)
        if record is not None and not (isinstance(record, dict) and record.get("format") == FORMAT and sealed(record)):
            record = None
            made_anew(folder / RECORD, "its digest or its format differs")
        if record is not None and record["stamp"] == self.stamp:
            for batch in record["batches"]:
                path = self.path(len(self.batches))
                try:
                    read_tensors(path, batch["sha256"])
                except DamagedFile as error:
                    made_anew(path, error)
                    break
                self.batches.append(batch)
                self.steps = record["steps"]
                self.spent += batch["seconds"]
                self.peak = max(self.peak, batch["peak_memory_bytes"])

    @property
    def complete(self) -> bool:
        return len(self.batches) == len(self.prompts)

    def path(self, batch: int) -> Path:
        assert self.folder is not None
        return self.folder / f"batch-{batch + 1}.safetensors"

    def record(self, calibration: Calibration, denoiser: nn.Module) -> None:
        """Sample the batches that are missing.

        Raises:
            SpecError: as Calibration.run(), or an argument of the denoiser cannot be stored.
        """
        missing = self.prompts[len(self.batches) :]
        for rows in tqdm(missing, desc="sampling once", unit="batch", leave=False, mininterval=2):
            steps, started = Steps(), time.perf_counter()
            recorder = Recorder(steps)
            handle = denoiser.register_forward_pre_hook(recorder, with_kwargs=True)
            try:
                calibration.run(rows, steps)
            finally:
                handle.remove()
            self.steps = steps_of(calibration.pipe)
            batch: dict[str, Any] = {"calls": recorder.calls}
            if self.folder is None:
                self.memory.append(recorder.tensors)
            else:
                batch["sha256"] = write_tensors(self.path(len(self.batches)), recorder.tensors)
                batch["seconds"] = time.perf_counter() - started
                batch["peak_memory_bytes"] = peak_memory(next(denoiser.parameters()).device)
            self.batches.append(batch)
            if self.folder is not None:
                record = {"format": FORMAT, "stamp": self.stamp, "steps": self.steps, "batches": self.batches}
                # as a reader will have it, so that the digest is of that
                write_json(self.folder / RECORD, seal(json.loads(json.dumps(record))))

    def calls(self) -> list[Call]:
        """Those that calibrate, in the order in which they were made: all, or of some steps of each batch."""
        return [
            Call(i, step, folded)
            for i, batch in enumerate(self.batches)
            for step, folded in batch["calls"]
            if step in self.chosen_steps(i)
        ]

    def chosen_steps(self, batch: int) -> Container[int]:
        """The steps of a batch that calibrate, spread over all, and shifted from batch to batch by the golden ratio."""
        count = stated(self.spec.calibration_steps)
        if not 0 < count < self.steps:
            return range(self.steps)
        stride = self.steps / count
        shift = batch * GOLDEN % 1 * stride
        return {int(shift + i * stride) for i in range(count)}

    def tensors(self, batch: int) -> dict[str, Tensor]:
        """Of all calls of a batch, in CPU memory.

        Raises:
            SpecError: the file was altered since it was looked at.
        """
        if self.folder is None:
            return self.memory[batch]
        if self.loaded is None or self.loaded[0] != batch:
            try:
                self.loaded = (batch, read_tensors(self.path(batch), self.batches[batch]["sha256"]))
            except DamagedFile as error:
                raise SpecError(f"trajectory: {error}; run the same command again") from None
        return self.loaded[1]

    def shared(self, batch: int) -> set[str]:
        """Names of a batch's tensors that several of its calls get."""
        calls = self.batches[batch]["calls"]
        count = Counter(name for step, folded in calls for name in Call(batch, step, folded).names)
        return {name for name, times in count.items() if times > 1}

    def run(self, call: Call, denoiser: nn.Module, device: torch.device, differentiable: bool = False) -> Any:
        """Make a call again, on the denoiser as it is now.

        Args:
            differentiable: whether the arguments require gradients, so that the output depends on something.
        """
        tensors = self.tensors(call.batch)
        own = placed(call, tensors, device, tensors.keys())
        if differentiable:  # a leaf cannot be changed in place, a copy of it can
            own = {k: t.requires_grad_().clone() if t.is_floating_point() else t for k, t in own.items()}
        args, kwargs = unfold(call.arguments, own)
        return denoiser(*args, **kwargs)

    def statistics(
        self, denoiser: nn.Module, groups: Sequence[Group], kind: str, alphas: Tensor, device: torch.device
    ) -> dict[Group, Statistic]:
        """The input statistics of all calls, made again one after the other on the denoiser as it is now.

        Args:
            alphas: (T,) weights of the steps.

        Raises:
            LayerError: as Calibration.statistics().
        """
        stats = begun(denoiser, groups, kind, self.spec)
        odd: Call | None = None
        with summing(denoiser, [stats], lambda: float(alphas[call.step])):
            for call in self.calls():
                self.run(call, denoiser, device)
                if not all(stat.finite for stat in stats.values()):
                    odd = call
                    break
        if odd:
            self.blame(odd, denoiser, device)
        check(stats)
        return stats

    def blame(self, call: Call, denoiser: nn.Module, device: torch.device) -> None:
        """Make a call again and raise LayerError where NaN or infinity arises first."""
        place = f"step {call.step + 1} of {self.steps}, {where(self.spec.prompts, self.prompts[call.batch])}"
        with blamed(denoiser, lambda: place):
            self.run(call, denoiser, device)


def files_of(folder: Path) -> Iterator[Path]:
    """A trajectory's files in a folder, and what killed processes left there."""
    for pattern in (FILES, RECORD, WAITING, ".*.tmp"):
        yield from folder.glob(pattern)
