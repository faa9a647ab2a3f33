"""The kernels that do without the memory, for memories of either depth: tables before the walks, gates after them.

Importing this file imports Triton. N tiles of C tokens, G = batch x heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.arguments import Tokens
from titans_seq.ops.memory.triton.configs import CHUNK, MlpTiles, Tiles
from titans_seq.ops.memory.triton.kernels import SHARES, gates_backward, matrix_prepare
from titans_seq.ops.memory.triton.plan import LaunchPlan, TokenRange


class Scratch(NamedTuple):
    """What `matrix_prepare` leaves for a segment."""

    shares: Tensor  # (N, G, SHARES, C)
    scores: Tensor  # (N, G, C, C), as all that follow
    writes: Tensor
    past: Tensor  # for online gradients, as the last
    inverse: Tensor


class GateGradients(NamedTuple):
    """Of the same, what leads on to the gates."""

    shares: Tensor
    writes: Tensor
    past: Tensor


class GateKernels:
    """Both kernels on one call's tokens, a segment at a time."""

    def __init__(self, plan: LaunchPlan, tokens: Tokens, states: int, tiles: Tiles | MlpTiles) -> None:
        self.plan = plan
        self.tokens = tokens
        self.states = states  # G
        self.tiles = tiles

    def prepare(self, segment: TokenRange) -> Scratch:
        """What of a segment does not depend on the memory."""
        q, k, _, *gates = self.tokens
        settings = self.tiles.settings("matrix_prepare")
        shares, writes = self._shares(segment), self._table(segment)
        scores = torch.empty_like(writes, dtype=self.tiles.operand)
        past, inverse = (torch.empty_like(writes) if settings["ONLINE"] else writes for _ in range(2))
        scratch = Scratch(shares, scores, writes, past, inverse)
        matrix_prepare[writes.shape[:2]](q, k, *gates, *scratch, *self.place(segment), **settings)
        return scratch

    def gradients(self, segment: TokenRange) -> GateGradients:
        """Room for them."""
        writes = self._table(segment)
        past = torch.empty_like(writes) if self.tiles.settings("matrix_prepare")["ONLINE"] else writes
        return GateGradients(self._shares(segment), writes, past)

    def gates_backward(
        self, segment: TokenRange, scratch: Scratch, gradients: GateGradients, d_gates: Sequence[Tensor]
    ) -> None:
        """The gates' gradients, to `d_gates`."""
        online = self.tiles.settings("matrix_prepare")["ONLINE"]
        gates_backward[scratch.writes.shape[:2]](
            *self.tokens[3:],
            scratch.shares,
            *gradients,
            *d_gates,
            *self.place(segment),
            **self.tiles.settings("gates_backward"),
            PAST=online and self.plan.options.outer_gradient == "exact",
        )

    def place(self, segment: TokenRange) -> tuple[int, ...]:
        """The kernels' arguments heads, sequence, first, stop, size, parts."""
        _, sequence, heads, _ = self.tokens.q.shape
        return heads, sequence, *self.plan.place(segment)

    def _shares(self, segment: TokenRange) -> Tensor:
        return self._new(segment, SHARES.value, CHUNK)

    def _table(self, segment: TokenRange) -> Tensor:
        return self._new(segment, CHUNK, CHUNK)

    def _new(self, segment: TokenRange, *shape: int) -> Tensor:
        return self.tokens.q.new_empty(self.plan.count(segment), self.states, *shape, dtype=torch.float32)
