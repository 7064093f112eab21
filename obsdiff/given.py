"""Weights that somebody else pruned (PruneSpec.weights): found, compared with the dense model's, and taken.

They are a model's denoiser as diffusers names its tensors, with zeros where weights were removed. All but the pruned
layers must be the model's own, so that weights of another model, revision or dtype are not mistaken for a pruning.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from obsdiff import models, registry, surgery
from obsdiff.errors import SpecError
from obsdiff.pipelines.published import KEY, compare, files_of, shapes_of
from obsdiff.pipelines.stored import Shapes
from obsdiff.spec import PruneSpec, stated
from obsdiff.surgery import State
from obsdiff.targets import Target

TOLERANCE = 0.005
"""by which a stated sparsity may differ from the weights' own"""


class Given:
    """Given weights, read tensor by tensor.

    Args:
        spec: of the run that takes them.
        denoiser: the component.
    """

    def __init__(self, spec: PruneSpec, denoiser: str) -> None:
        self.spec, self.place = spec, stated(spec.weights)
        self.files: dict[str, Path] = {}
        self.shapes: Shapes = {}
        for path in files_of(self.place, denoiser):
            found = shapes_of([path])
            self.shapes |= found
            self.files |= dict.fromkeys(found, path)

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """A tensor in the shape, dtype and on the device of the model's own; SpecError unless all of it is finite."""
        with safe_open(self.files[name], "pt") as file:
            found: Tensor = file.get_tensor(name).reshape(like.shape).to(like)
        if not found.isfinite().all():
            raise SpecError(f"{KEY}: {self.place!r} has numbers in {name} that are not finite")
        return found

    def state(self, layer: str, dense: State) -> State:
        """A layer's parameters, as the dense ones are."""
        bias = None if dense.bias is None else self.tensor(f"{layer}.bias", dense.bias)
        return State(self.tensor(f"{layer}.weight", dense.weight), bias)

    def changed(self, denoiser: nn.Module, targets: Sequence[Target]) -> set[str]:
        """Those of the targets' layers whose parameters are not the dense model's.

        Args:
            denoiser: the dense one.

        Raises:
            SpecError: names or shapes of tensors are not the model's; a number is not finite; a tensor of no such layer
                differs; or the zeros are not as many, or not where, the spec's sparsity and pattern say.
        """
        parameters = denoiser.state_dict()
        compare(self.place, self.shapes, {name: tuple(tensor.shape) for name, tensor in parameters.items()})
        layers = [layer for target in targets for layer in target.layers]
        own = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
        self.check_others({name: tensor for name, tensor in parameters.items() if name not in own})
        found, zeros, weights = set(), 0, 0
        for layer in layers:
            dense = surgery.state_of(models.linear(denoiser, layer))
            given = self.state(layer, dense)
            if given.weight.equal(dense.weight) and not bias_moved(given, dense):
                continue
            found.add(layer)
            left = given.weight != 0
            self.check_pattern(layer, left)
            zeros, weights = zeros + int((~left).sum()), weights + left.numel()
        share = zeros / weights if weights else 0.0
        if abs(share - self.spec.amount) > TOLERANCE:
            raise SpecError(
                f"sparsity: {self.spec.amount:g} is not that of {self.place!r}, which is {share:.4g} over the layers "
                "that differ from the model's; state that"
            )
        return found

    def check_others(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise SpecError unless these are the dense model's own."""
        others = [name for name, dense in parameters.items() if not self.tensor(name, dense).equal(dense)]
        if others:
            raise SpecError(
                f"{KEY}: {self.place!r} has another {others[0]} than the model ({len(others)} such in all), which is "
                "outside the layers that are pruned; give the dense model that it was made from, in its dtype"
            )

    def check_pattern(self, layer: str, left: Tensor) -> None:
        """Raise SpecError where a layer's weights that are left, (rows, columns) bool, break N:M."""
        pattern = self.spec.resolved
        if not pattern.arguments:  # zeros may be anywhere
            return
        entry = registry.load("obsdiff.patterns", pattern.entry)
        if (left & ~entry.keep(left.float(), self.spec.amount, "layer", **pattern.arguments)).any():
            raise SpecError(f"pattern: {self.spec.pattern!r} is not that of {self.place!r}: {layer} breaks it")


def bias_moved(one: State, other: State) -> bool:
    """Whether a layer's bias, where it has one, is another in one state than in the other."""
    return one.bias is not None and other.bias is not None and not one.bias.equal(other.bias)
