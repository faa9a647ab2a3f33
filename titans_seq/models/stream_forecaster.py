"""A forecaster that reads a series as one stream and forecasts at every patch, with a state of constant size.

Shapes: B streams (a series' channels, each from its own past), T steps read, N = T / P patches, L steps of context that
the linear path and the normalisation see, H steps of horizon.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from titans_seq.models.linear import LinearForecaster
from titans_seq.nn.dropout import Dropout


class StreamState(NamedTuple):
    """What is carried from one piece of a stream to the next; its size does not grow."""

    recent: Tensor  # (B, L): the last steps
    backbone: Sequence[object] | None  # the memories; None: nothing has been read

    def without_memory(self) -> "StreamState":
        """The same recent steps, and memories that have read nothing."""
        return StreamState(self.recent, None)

    def detach(self) -> "StreamState":
        """Cut from the graph that made it: for truncated backpropagation through time."""
        blocks = None if self.backbone is None else [block.detach() for block in self.backbone]  # type: ignore[attr-defined]
        return StreamState(self.recent.detach(), blocks)


class StreamForecaster(nn.Module):
    """At the end of every patch: a linear forecast from the last L steps, and what the backbone's tokens add.

    A token holds its patch less its last value, and the mean of the last L steps less that value, both divided by the
    deviation of the last L steps; the backbone's share of the forecast is multiplied by it again.

    Args:
        backbone: from tokens (B, N, dim) and a state to (B, N, dim) and a state (`titans_seq.backbone.Stack`).
        dim: features of its tokens.
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

    def begin(self, before: Tensor) -> StreamState:
        """The state of streams whose last L steps were `before` (B, L)."""
        assert before.shape[1] == self.context_length, "the context's length, no more and no less"
        return StreamState(before, None)

    def forward(self, steps: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Read steps (B, T), T a multiple of P; gives the forecast after every patch, (B, N, H), and the state."""
        tokens, linear, std, recent = self._prepare(steps, state)
        read, memories = self.backbone(tokens, state.backbone)
        return linear + std * self.head(self.dropout(read)), StreamState(recent, memories)

    def forecast_linear(self, steps: Tensor, state: StreamState) -> Tensor:
        """What the linear path alone says after every patch, (B, N, H)."""
        return self._prepare(steps, state)[1]

    def forecast_afresh(self, steps: Tensor, state: StreamState, patches: int) -> Tensor:
        """As `forward`, but the forecast after a patch comes from memories that read the last `patches` alone.

        Gives (B, N - patches + 1, H), for the patches from number `patches` on.
        """
        tokens, linear, std, _ = self._prepare(steps, state)
        windows = tokens.unfold(1, patches, 1).movedim(-1, 2)  # (B, N - patches + 1, patches, dim)
        read, _ = self.backbone(windows.flatten(0, 1))
        last = read[:, -1].unflatten(0, windows.shape[:2])
        skip = patches - 1
        forecast: Tensor = linear[:, skip:] + std[:, skip:] * self.head(self.dropout(last))
        return forecast

    def _prepare(self, steps: Tensor, state: StreamState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens (B, N, dim), linear forecasts (B, N, H), deviations (B, N, 1), and the last L steps (B, L)."""
        if steps.shape[1] % self.patch_length:
            raise ValueError(f"a piece must be a multiple of patch_length = {self.patch_length}; got {steps.shape[1]}")
        known = torch.cat([state.recent, steps], dim=1)
        contexts = known[:, self.patch_length :].unfold(1, self.context_length, self.patch_length)  # (B, N, L)
        variance, mean = torch.var_mean(contexts, dim=2, keepdim=True, correction=0)
        std, last = (variance + 1e-5).sqrt(), contexts[..., -1:]
        patches = contexts[..., -self.patch_length :]
        tokens = self.embed(torch.cat([patches - last, mean - last], dim=2) / std)
        linear = self.linear_path(contexts.flatten(0, 1).unsqueeze(2)).squeeze(2).unflatten(0, contexts.shape[:2])
        return tokens, linear, std, known[:, -self.context_length :]
