"""Timestep-weighted running sums over a layer's inputs, one class a statistic; tensors in, tensors out.

Sums are float32 whatever the inputs' dtype. Tokens are summed and samples averaged, so that
`Hessian.value()` = 2 Σₜ αₜ Xₜᵀ Xₜ / Σₜ αₜ · batchₜ, as in the official code.
"""

from typing import Protocol

import torch
from torch import Tensor


class StatisticError(Exception):
    """No input was seen, or one that was not finite."""


class Statistic(Protocol):
    def __init__(self, columns: int, device: torch.device) -> None: ...

    def add(self, x: Tensor, alpha: float) -> None:
        """Count inputs (batch, …, columns) of one denoising step with weight α."""

    def value(self) -> Tensor: ...

    def bytes(self) -> int: ...


class _Sum:
    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.sum = torch.zeros(shape, dtype=torch.float32, device=device)
        self.weight = 0.0

    def tokens(self, x: Tensor, alpha: float) -> Tensor:
        self.weight += alpha * x.shape[0]
        return x.reshape(-1, x.shape[-1]).float()

    def value(self) -> Tensor:
        if self.weight == 0:
            raise StatisticError("its input was never seen; is it used at these sampling settings?")
        if not torch.isfinite(self.sum).all():
            raise StatisticError("its input held NaN or infinity; try another dtype")
        return self.sum / self.weight

    def bytes(self) -> int:
        return self.sum.numel() * self.sum.element_size()


class SquaredNorm(_Sum):
    """Σₜ αₜ ‖Xₜ[:, j]‖² / Σₜ αₜ · batchₜ of every column: (columns,). Wanda's statistic (Sun et al. 2024)."""

    def __init__(self, columns: int, device: torch.device) -> None:
        super().__init__((columns,), device)

    def add(self, x: Tensor, alpha: float) -> None:
        self.sum += alpha * self.tokens(x, alpha).square().sum(dim=0)


class Hessian(_Sum):
    """2 Σₜ αₜ Xₜᵀ Xₜ / Σₜ αₜ · batchₜ: (columns, columns). The Hessian of the layer's weighted error (eq. 5)."""

    def __init__(self, columns: int, device: torch.device) -> None:
        super().__init__((columns, columns), device)

    def add(self, x: Tensor, alpha: float) -> None:
        tokens = self.tokens(x, alpha)
        self.sum.addmm_(tokens.T, tokens, alpha=2 * alpha)


STATISTICS: dict[str, type[Statistic]] = {"squared_norm": SquaredNorm, "hessian": Hessian}
