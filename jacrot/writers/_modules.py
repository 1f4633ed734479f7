"""PyTorch modules of layers that PyTorch does not have.

Models that were saved as a whole refer to them by the path of this file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class AlongFeatures(nn.Module):
    """A module that acts on the last axis, for batches of which some or all are images."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Apply the module to the features, which are the channels of images."""
        if x.ndim == 4:
            return self.module(x.movedim(1, -1)).movedim(-1, 1)
        return self.module(x)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of rows, sequences ``(n, positions, features)`` and images alike."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the features, which PyTorch expects on the second axis."""
        if x.ndim == 3:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        return super().forward(x)


class Residual(nn.Module):
    """Sum of two branches."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Add the branches."""
        return self.shortcut(x) + self.branch(x)


class GatedLinear(nn.Module):
    """Product of two linear maps, one of them with an activation."""

    def __init__(self, gate: nn.Module, activation: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        self.activation = activation
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the maps."""
        return self.activation(self.gate(x)) * self.up(x)


class SelfAttention(nn.Module):
    """PyTorch's attention, of a sequence with itself."""

    mask: Tensor | None

    def __init__(self, attention: nn.MultiheadAttention, mask: Tensor | None) -> None:
        super().__init__()
        self.attention = attention
        # True where a position does not attend.
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the attention."""
        # With need_weights, PyTorch takes the path that it can differentiate in all modes.
        return self.attention(x, x, x, attn_mask=self.mask, need_weights=True)[0]


class Attention(nn.Module):
    """Self-attention that PyTorch does not have: of other widths, or causal at any length."""

    mask: Tensor | None

    def __init__(
        self,
        sides: Mapping[str, nn.Module],
        n_heads: int,
        scale: float,
        mask: Tensor | None,
        causal: bool,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.query = sides["query"]
        self.key = sides["key"]
        self.value = sides["value"]
        self.output = sides["output"]
        self.n_heads, self.scale, self.causal, self.frozen = n_heads, scale, causal, frozen
        # True where a position does not attend.
        self.register_buffer("mask", mask)

    def extra_repr(self) -> str:
        """Describe what the submodules do not show."""
        return f"n_heads={self.n_heads}, scale={self.scale}, causal={self.causal}" + (
            ", frozen=True" if self.frozen else ""
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the attention."""
        query, key, value = [
            side(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for side in (self.query, self.key, self.value)
        ]
        scores = self.scale * (query @ key.transpose(-2, -1))
        mask = self.mask
        if self.causal:
            mask = torch.ones_like(scores, dtype=torch.bool).triu(1)
        if mask is not None:
            scores = scores.masked_fill(mask, -torch.inf)
        pattern = scores.softmax(dim=-1)
        if self.frozen:
            pattern = pattern.detach()
        return self.output((pattern @ value).transpose(1, 2).flatten(2))


class AvgPoolInside(nn.Module):
    """Mean over the part of every window that is inside the image."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        # A mean in which zeros around the image count.
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the share of the window that is inside the image."""
        return self.pool(x) / self.pool(torch.ones_like(x[:1, :1]))


class PlainNorm(nn.Module):
    """Layer norm, or root-mean-square norm, without parameters and of any number of features."""

    def __init__(self, centred: bool, eps: float) -> None:
        super().__init__()
        self.centred, self.eps = centred, eps

    def extra_repr(self) -> str:
        """Describe the norm."""
        return f"centred={self.centred}, eps={self.eps}"

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        if self.centred:
            return nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps)
        return nn.functional.rms_norm(x, x.shape[-1:], eps=self.eps)
