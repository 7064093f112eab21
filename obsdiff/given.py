"""Weights that somebody else pruned (PruneSpec.weights): found, compared with the dense model's, and taken.

They are a model's denoiser as diffusers names its tensors, with zeros where weights were removed. All but the pruned
layers must be the model's own, so that weights of another model, revision or dtype are not mistaken for a pruning.
"""

from collections.abc import Collection, Sequence

from safetensors import safe_open
from torch import Tensor, nn

from obsdiff import models, registry, surgery
from obsdiff.errors import SpecError
from obsdiff.pipelines.published import KEY, compare, files_of, shapes_of
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
        self.files = {name: path for path in files_of(self.place, denoiser) for name in shapes_of([path])}

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """A tensor in the shape, dtype and on the device of the model's own."""
        with safe_open(self.files[name], "pt") as file:
            found: Tensor = file.get_tensor(name).reshape(like.shape).to(like)
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
        state = denoiser.state_dict()
        own = {name: tuple(tensor.shape) for name, tensor in state.items()}
        compare(self.place, shapes_of(dict.fromkeys(self.files.values())), own)
        layers = {f"{name}.{part}": name for t in targets for name in t.layers for part in ("weight", "bias")}
        found, others = set(), []
        for name, dense in state.items():
            tensor = self.tensor(name, dense)
            if not tensor.isfinite().all():
                raise SpecError(f"{KEY}: {self.place!r} has numbers in {name} that are not finite")
            if tensor.equal(dense):
                continue
            if name in layers:
                found.add(layers[name])
            else:
                others.append(name)
        if others:
            raise SpecError(
                f"{KEY}: {self.place!r} has another {others[0]} than the model ({len(others)} such in all), which is "
                "outside the layers that are pruned; give the dense model that it was made from, in its dtype"
            )
        self.check_zeros(denoiser, found)
        return found

    def check_zeros(self, denoiser: nn.Module, layers: Collection[str]) -> None:
        """Compare the zeros of the layers that changed with the spec's sparsity and pattern."""
        pattern, zeros, weights = self.spec.resolved, 0, 0
        entry = registry.load("obsdiff.patterns", pattern.entry)
        for layer in sorted(layers):
            weight = self.tensor(f"{layer}.weight", surgery.state_of(models.linear(denoiser, layer)).weight)
            left = weight != 0
            zeros, weights = zeros + int((~left).sum()), weights + weight.numel()
            arguments = pattern.arguments  # of N:M; without any, zeros may be anywhere
            if arguments and (left & ~entry.keep(left.float(), self.spec.amount, "layer", **arguments)).any():
                raise SpecError(f"pattern: {self.spec.pattern!r} is not that of {self.place!r}: {layer} breaks it")
        share = zeros / weights if weights else 0.0
        if abs(share - self.spec.amount) > TOLERANCE:
            raise SpecError(
                f"sparsity: {self.spec.amount:g} is not that of {self.place!r}, which is {share:.4g} over the layers "
                "that differ from the model's; state that"
            )
