"""packages: sequential — each layer calibrated on all layers before it pruned, for at most one more forward pass.

All calls of the dense trajectory are under way at once. They stop where the next layer to be pruned is about to be
called, its statistic is summed up from their inputs, it is pruned, and they go on to the next one with its new weights.
Each block of each call is so computed once. Heads and neurons change layers that a call has passed when their
statistic is known: there a call stops before the smallest module that holds them all, which it rehearses for the
statistic and then runs again when it has been made smaller. A layer that a call reads several times is rehearsed in the
same way, for all its inputs.

No family is known here: a call's state from layer to layer is its stopped frames, skip connections, embeddings and
all. What calls hold may be much; where it stays is settled call by call, from one budget:

    device          a GPU's own memory, as far as half of what is free goes, because copies take longer than layers
    memory          host memory, as far as `trajectory_memory` goes (on a CPU: where it is)
    files           in the progress folder, beyond that, while the disk has room
    computed again  without such a folder: the call is run from its inputs to every stop, so that time grows with depth

All four give the same bits.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff.calibration.calls import Call, placed, unfold
from obsdiff.calibration.runs import begun, check
from obsdiff.calibration.sensitivity import Sensitivity
from obsdiff.calibration.stops import Entries, Repeated, Seen, stopping
from obsdiff.calibration.trajectory import WAITING, Trajectory
from obsdiff.calibration.waiting import Stopped, lasting
from obsdiff.errors import SpecError
from obsdiff.packages import GIB, Group, bytes_of
from obsdiff.solver.statistics import Statistic
from obsdiff.targets import Target

DEVICE, MEMORY, FILES, AGAIN = "on the device", "in memory", "in files", "computed again at every stop"
SPARE = 1 << 28
"""bytes that files leave free on a disk"""


class Walk:
    """All calls of a trajectory on their way through the denoiser, to be taken from target to target in order."""

    def __init__(
        self,
        trajectory: Trajectory,
        denoiser: nn.Module,
        alphas: Tensor,
        device: torch.device,
        folder: Path | None,
        sensitivity: Sensitivity | None = None,
        repeated: Repeated = MappingProxyType({}),
    ) -> None:
        """
        Args:
            alphas: (T,) weights of the steps.
            device: of the denoiser.
            folder: for files of what calls hold; those that a killed run left are removed.
            sensitivity: weighs the tokens of an input; by default all count the same.
            repeated: layers that a call reads several times.
        """
        self.entries = Entries(denoiser, repeated)
        self.trajectory, self.denoiser, self.alphas, self.device = trajectory, denoiser, alphas, device
        self.folder, self.sensitivity = folder, sensitivity
        for stale in folder.glob(WAITING) if folder else ():
            stale.unlink()
        self.budget = bytes_of(trajectory.spec.trajectory_memory)
        # the first call tells what one holds; those that always leave are watched for that
        self.calls = [Stopped(call, i == 0 or self.leaves) for i, call in enumerate(trajectory.calls())]
        self.texts: tuple[int, dict[str, Tensor]] = (-1, {})
        self.room = room_on(device)
        self.on_device = self.in_memory = self.a_prompt = 0
        self.told: set[str] = set()

    @property
    def leaves(self) -> bool:
        """Whether calls that wait in host memory have to go there."""
        return self.device.type != "cpu"

    def statistics(self, target: Target, kind: str) -> dict[Group, Statistic]:
        """Take all calls to a target and sum up its inputs; the target is to be pruned before the next one's turn.

        Raises:
            LayerError: a layer was never called, or NaN or infinity arose.
            SpecError: the device's memory is short.
            OSError: the disk is full.
        """
        stats = begun(self.denoiser, target.unit, kind, self.trajectory.spec)
        places: Counter[str] = Counter()
        weights = set(lasting(self.denoiser))
        odd: Call | None = None
        weigh = self.sensitivity.token_weights if self.sensitivity else lambda group: None
        tokens = {group: weigh(group) for group in target.unit}
        with stopping(self.denoiser, target, self.entries):
            for number, stopped in enumerate(self.calls):
                uses: Counter[Group] = Counter()
                for group, x in self.take(stopped):
                    alpha, weighed = float(self.alphas[stopped.call.step]), tokens[group]
                    nothing = None if weighed is None else torch.zeros(x.shape[:-1])
                    stats[group].add(x, alpha, (weighed or {}).get((number, uses[group]), nothing))
                    uses[group] += 1
                    odd = odd or (None if stats[group].finite else stopped.call)
                if odd:
                    break
                places[self.settle(stopped, weights)] += 1
        if odd:
            self.close()
            self.trajectory.blame(odd, self.denoiser, self.device)
        check(stats)
        self.tell(places)
        return stats

    def take(self, stopped: Stopped) -> Seen:
        """One call to the next stop; nothing is seen where it came to its end."""
        if stopped.over:
            return []
        try:
            seen: Seen = stopped.go(self.denoiser, *(() if stopped.begun else self.arguments(stopped)))
        except torch.OutOfMemoryError as error:
            raise SpecError(
                f"batch_size: {self.trajectory.spec.sampling.batch_size} prompts at once need more memory than the "
                "device has; give a smaller one (`obsdiff plan` says what fits)"
            ) from error
        return [] if stopped.over else seen

    def arguments(self, stopped: Stopped) -> tuple[Any, Any]:
        """What a call begins with. Inputs that calls of a batch share (the text) are on the device once."""
        call = stopped.call
        table = self.trajectory.tensors(call.batch)
        if self.texts[0] != call.batch:
            common = self.trajectory.shared(call.batch)
            everything = [c.call for c in self.calls if c.call.batch == call.batch]
            self.texts = call.batch, {}
            for one in everything:
                self.texts[1].update(placed(one, table, self.device, common - self.texts[1].keys()))
        own = placed(call, table, self.device, set(call.names) - self.texts[1].keys())
        stopped.shared = {tensor.untyped_storage()._cdata for tensor in self.texts[1].values()}
        if stopped.watch is not None:
            stopped.watch.see(own)
        args, kwargs = unfold(call.arguments, own | self.texts[1])
        return args, kwargs

    def settle(self, stopped: Stopped, weights: set[int]) -> str:
        """Decide where what a stopped call holds stays: DEVICE, MEMORY, FILES or AGAIN."""
        self.in_memory -= stopped.in_memory
        self.on_device -= stopped.on_device
        stopped.in_memory = stopped.on_device = 0
        if stopped.over:
            return MEMORY
        prompts = self.trajectory.prompts[stopped.call.batch]
        count = prompts.stop - prompts.start
        keep = weights | stopped.shared
        if stopped.watch is not None:
            size = sum(storage.nbytes() for storage in stopped.watch.alive(keep))
            self.a_prompt = max(self.a_prompt, -(-size // count)) if stopped is not self.calls[0] else -(-size // count)
        else:
            size = self.a_prompt * count
        if self.on_device + size <= self.room:
            stopped.on_device = size
            self.on_device += size
            return DEVICE
        if self.in_memory + size <= self.budget:
            stopped.in_memory = size
            self.in_memory += size
            if self.leaves:
                stopped.leave(keep, None)
            return MEMORY
        if self.folder is None or shutil.disk_usage(self.folder).free < size + SPARE:
            stopped.drop(watched=stopped.watch is not None)
            return AGAIN
        if stopped.watch is None:  # that it would have to leave was not known: once more from the start, watched
            stopped.drop(watched=True)
        else:
            stopped.leave(keep, self.folder / f"waiting-{self.calls.index(stopped)}.bin")
        return FILES

    def tell(self, places: Counter[str]) -> None:
        """Say once where calls wait, and again when a place is new."""
        if places.keys() - self.told:
            self.told |= places.keys()
            where = ", ".join(f"{count} {place}" for place, count in sorted(places.items()))
            size = f"{self.in_memory / GIB:.2f} of {self.budget / GIB:g} GiB of trajectory_memory"
            print(f"packages: sequential: calls of the denoiser wait {where}; {size}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End all calls where they are."""
        self.entries.close()
        for stopped in self.calls:
            stopped.drop()


def room_on(device: torch.device) -> int:
    """Bytes of a GPU that waiting calls may hold: half of what is free; 0 on a CPU, where they are in memory."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + unused) // 2
