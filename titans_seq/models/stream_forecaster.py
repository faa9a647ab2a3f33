"""Streaming forecaster: reads a series patch by patch and forecasts after every patch, with constant-size state.

Shapes: B streams (the channels of a series, each forecast from its own past), T input steps, N = T / P patches, L
context steps of the linear path and the normalisation, H horizon steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from titans_seq.models.linear import LinearForecaster
from titans_seq.nn.dropout import Dropout


class StreamState(NamedTuple):
    """State carried from one chunk of a stream to the next, of constant size."""

    recent: Tensor  # (B, L): the last L steps
    backbone: Sequence[object] | None  # the memory states; None before anything is read

    def without_memory(self) -> "StreamState":
        """Return the same recent steps with memories at initialisation."""
        return StreamState(self.recent, None)

    def detach(self) -> "StreamState":
        """Detach from the autograd graph, for truncated backpropagation through time."""
        blocks = None if self.backbone is None else [block.detach() for block in self.backbone]  # type: ignore[attr-defined]
        return StreamState(self.recent.detach(), blocks)


class StreamForecaster(nn.Module):
    """Linear forecast from the last L steps plus a residual from the backbone, after every patch.

    A token is its patch minus its last value, and the mean of the last L steps minus that value, both divided by the
    standard deviation of the last L steps; the backbone's part of the forecast is multiplied by it again.

    Args:
        backbone: from tokens (B, N, dim) and a state to (B, N, dim) and a state (`titans_seq.backbone.Stack`).
        dim: features of a token.
        context_length: L.
        horizon: H.
        patch_length: P.
        dropout: on the head's input.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int,
        context_length: int,
        horizon: int,
        patch_length: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context_length, self.patch_length = context_length, patch_length
        self.embed = nn.Linear(patch_length + 1, dim)
        self.backbone = backbone
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(dim, horizon)
        self.linear_path = LinearForecaster(context_length, horizon)
        nn.init.zeros_(self.head.weight)  # training starts at the linear forecast
        nn.init.zeros_(self.head.bias)

    def initial_state(self, context: Tensor) -> StreamState:
        """Return the state of streams whose last L steps are `context` (B, L), with memories at initialisation."""
        assert context.shape[1] == self.context_length, "context must have context_length steps"
        return StreamState(context, None)

    def forward(self, steps: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Read steps (B, T), T a multiple of P; return the forecast after every patch, (B, N, H), and the state."""
        tokens, linear, std, recent = self._prepare(steps, state)
        read, memories = self.backbone(tokens, state.backbone)
        return linear + std * self.head(self.dropout(read)), StreamState(recent, memories)

    def forecast_linear(self, steps: Tensor, state: StreamState) -> Tensor:
        """Return the forecast of the linear path alone after every patch, (B, N, H)."""
        return self._prepare(steps, state)[1]

    def forecast_windowed(self, steps: Tensor, state: StreamState, patches: int) -> Tensor:
        """Forecast like `forward`, but with memories that read only the last `patches` patches.

        Returns (B, N - patches + 1, H), for the patches from number `patches` on.
        """
        tokens, linear, std, _ = self._prepare(steps, state)
        windows = tokens.unfold(1, patches, 1).movedim(-1, 2)  # (B, N - patches + 1, patches, dim)
        read, _ = self.backbone(windows.flatten(0, 1))
        last = read[:, -1].unflatten(0, windows.shape[:2])
        skip = patches - 1
        forecast: Tensor = linear[:, skip:] + std[:, skip:] * self.head(self.dropout(last))
        return forecast

    def _prepare(self, steps: Tensor, state: StreamState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return tokens (B, N, dim), linear forecasts (B, N, H), deviations (B, N, 1) and the last L steps (B, L)."""
        if steps.shape[1] % self.patch_length:
            raise ValueError(f"steps must be a multiple of patch_length = {self.patch_length}; got {steps.shape[1]}")
        history = torch.cat([state.recent, steps], dim=1)
        contexts = history[:, self.patch_length :].unfold(1, self.context_length, self.patch_length)  # (B, N, L)
        variance, mean = torch.var_mean(contexts, dim=2, keepdim=True, correction=0)
        std, last = (variance + 1e-5).sqrt(), contexts[..., -1:]
        patches = contexts[..., -self.patch_length :]
        tokens = self.embed(torch.cat([patches - last, mean - last], dim=2) / std)
        linear = self.linear_path(contexts.flatten(0, 1).unsqueeze(2)).squeeze(2).unflatten(0, contexts.shape[:2])
        return tokens, linear, std, history[:, -self.context_length :]
