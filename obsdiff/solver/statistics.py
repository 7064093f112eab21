"""Timestep-weighted running sums over a layer's inputs, one class per statistic; tensors in, tensors out.

Sums are float32 whatever the inputs' dtype, and so is every product (products.py). Tokens are summed and samples
averaged, so that `Hessian.value().hessian` = 2 Σₜ αₜ Xₜᵀ Xₜ / Σₜ αₜ · batchₜ, as in the official code.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from obsdiff.solver import factors, products


class StatisticError(Exception):
    """No input was seen, or one that was not finite."""


@dataclass(frozen=True)
class Input:
    """What calibration found out about a layer's input of `c` columns.

    Attributes:
        tokens: weighted mean count of tokens a sample.
        mean: (c,) float32, over tokens.
        squared_norm: (c,) float32, ‖X[:, j]‖² of a sample: Wanda's statistic (Sun et al. 2024).
        hessian: (c, c) float32 of the layer's weighted error (OBS-Diff eq. 5), or None where it was not asked for.
        damping: λ of its factorisation, in units of mean(diag H).
    """

    tokens: float
    mean: Tensor
    squared_norm: Tensor
    hessian: Tensor | None = None
    damping: float = 0.01

    @property
    def variance(self) -> Tensor:
        """(c,) float32, over tokens."""
        return (self.squared_norm / self.tokens - self.mean.square()).clamp_min(0.0)

    @cached_property
    def factor(self) -> factors.Factor:
        """Of the Hessian; made once for all layers that share the input."""
        assert self.hessian is not None
        return factors.factor(self.hessian, self.damping)

    def narrow(self, columns: Tensor | slice) -> "Input":
        """Of some columns: (c,) bool, (k,) int64 or a span."""
        hessian = None if self.hessian is None else self.hessian[columns][:, columns]
        return replace(self, mean=self.mean[columns], squared_norm=self.squared_norm[columns], hessian=hessian)

    def centred(self) -> "Input":
        """With the covariance for the Hessian: the error that is left where a bias takes up every mean."""
        assert self.hessian is not None
        return replace(self, hessian=self.hessian - 2 * self.tokens * torch.outer(self.mean, self.mean))


class Statistic(Protocol):
    weight: float

    def __init__(self, columns: int, device: torch.device) -> None: ...

    def add(self, x: Tensor, alpha: float, tokens: Tensor | None = None) -> None:
        """Count inputs (batch, …, columns) of one denoising step with weight α.

        Args:
            tokens: (batch, …) float32 weights of the tokens beside α, whose mean over all inputs should be 1; by
                default every token counts the same.
        """

    @property
    def finite(self) -> bool: ...

    def check(self) -> None: ...

    def value(self, device: torch.device, damping: float = 0.01) -> Input: ...

    @staticmethod
    def bytes(columns: int) -> int: ...


class Moments:
    """Mean and squared norm of every column."""

    def __init__(self, columns: int, device: torch.device) -> None:
        self.total = torch.zeros(columns, dtype=torch.float32, device=device)
        self.squares = torch.zeros(columns, dtype=torch.float32, device=device)
        self.weight = 0.0
        self.tokens = 0.0

    def add(self, x: Tensor, alpha: float, tokens: Tensor | None = None) -> None:
        rows = self.rows(x, alpha, tokens).float()
        self.squares += (alpha * rows.square().sum(dim=0)).to(self.squares.device)

    def rows(self, x: Tensor, alpha: float, tokens: Tensor | None = None) -> Tensor:
        """x as (tokens, columns), its count and sum taken; with weights, each row times the root of its own."""
        rows = x.reshape(-1, x.shape[-1])
        self.weight += alpha * x.shape[0]
        if tokens is None:
            self.tokens += alpha * rows.shape[0]
            self.total += (alpha * rows.sum(dim=0, dtype=torch.float32)).to(self.total.device)
            return rows
        weights = tokens.reshape(-1).to(rows.device, torch.float32)
        self.tokens += alpha * float(weights.sum())
        self.total += (alpha * (weights @ rows.float())).to(self.total.device)
        return rows.float() * weights.sqrt()[:, None]

    def norms(self) -> Tensor:
        """Sums of squares, (columns,)."""
        return self.squares

    @property
    def finite(self) -> bool:
        """Whether all sums are: no input was NaN, infinite or too large."""
        return bool(torch.isfinite(self.total).all() and torch.isfinite(self.norms()).all())

    def check(self) -> None:
        """Raise StatisticError where nothing was added, or NaN or infinity was."""
        if self.weight == 0:
            raise StatisticError("its input was never seen; is it used at these sampling settings?")
        if not self.finite:
            raise StatisticError("its input held NaN or infinity; try another dtype")

    def value(self, device: torch.device, damping: float = 0.01) -> Input:
        """The averages, on `device`; raises StatisticError as check() does."""
        self.check()
        mean, squared = (self.total / self.tokens).to(device), (self.norms() / self.weight).to(device)
        return Input(self.tokens / self.weight, mean, squared, damping=damping)

    @staticmethod
    def bytes(columns: int) -> int:
        return 8 * columns


class Hessian(Moments):
    """The moments, and 2 Σₜ αₜ Xₜᵀ Xₜ / Σₜ αₜ · batchₜ, whose diagonal is twice the squared norms.

    `products` holds the upper triangle alone until value() mirrors it.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        super().__init__(columns, device)
        self.products = torch.zeros((columns, columns), dtype=torch.float32, device=device)

    def add(self, x: Tensor, alpha: float, tokens: Tensor | None = None) -> None:
        products.add(self.products, self.rows(x, alpha, tokens), alpha)

    def norms(self) -> Tensor:
        return self.products.diagonal()

    def value(self, device: torch.device, damping: float = 0.01) -> Input:
        averages = super().value(device, damping)
        hessian = self.products.to(device, copy=True).mul_(2 / self.weight)
        return replace(averages, hessian=products.mirror(hessian))

    @staticmethod
    def bytes(columns: int) -> int:
        return 8 * columns + 4 * columns**2


STATISTICS: dict[str, type[Statistic]] = {"moments": Moments, "hessian": Hessian}
