"""The kernels that do without the memory, for memories of either depth: tables before the walks, gates after them.

Importing this file imports Triton. N tiles of C tokens, G = batch x heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.kernels import SHARES, gates_backward, matrix_prepare
from titans_seq.ops.memory.pieces import Piece, Plan
from titans_seq.ops.memory.tiles import CHUNK, MlpTiles, Tiles
from titans_seq.ops.memory.tokens import Tokens


class Scratch(NamedTuple):
    """What `matrix_prepare` leaves for a segment."""

    shares: Tensor  # (N, G, SHARES, C)
    scores: Tensor  # (N, G, C, C), as all that follow
    writes: Tensor
    past: Tensor  # for online gradients, as the last
    inverse: Tensor


class Gradients(NamedTuple):
    """Of the same, what leads on to the gates."""

    shares: Tensor
    writes: Tensor
    past: Tensor


class Tables:
    """Both kernels on one call's tokens, a segment at a time."""

    def __init__(self, plan: Plan, tokens: Tokens, states: int, tiles: Tiles | MlpTiles) -> None:
        self.plan = plan
        self.tokens = tokens
        self.states = states  # G
        self.tiles = tiles

    def prepare(self, segment: Piece) -> Scratch:
        """What of a segment does not depend on the memory."""
        q, k, _, *gates = self.tokens
        settings = self.tiles.settings("matrix_prepare")
        shares, writes = self._shares(segment), self._table(segment)
        scores = torch.empty_like(writes, dtype=self.tiles.operand)
        past, inverse = (torch.empty_like(writes) if settings["ONLINE"] else writes for _ in range(2))
        scratch = Scratch(shares, scores, writes, past, inverse)
        matrix_prepare[writes.shape[:2]](q, k, *gates, *scratch, *self.place(segment), **settings)
        return scratch

    def gradients(self, segment: Piece) -> Gradients:
        """Room for them."""
        writes = self._table(segment)
        past = torch.empty_like(writes) if self.tiles.settings("matrix_prepare")["ONLINE"] else writes
        return Gradients(self._shares(segment), writes, past)

    def gates_backward(self, segment: Piece, scratch: Scratch, gradients: Gradients, d_gates: Sequence[Tensor]) -> None:
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

    def place(self, segment: Piece) -> tuple[int, ...]:
        """The kernels' arguments heads, sequence, first, stop, size, parts."""
        _, sequence, heads, _ = self.tokens.q.shape
        return heads, sequence, *self.plan.place(segment)

    def _shares(self, segment: Piece) -> Tensor:
        return self._new(segment, SHARES.value, CHUNK)

    def _table(self, segment: Piece) -> Tensor:
        return self._new(segment, CHUNK, CHUNK)

    def _new(self, segment: Piece, *shape: int) -> Tensor:
        return self.tokens.q.new_empty(self.plan.count(segment), self.states, *shape, dtype=torch.float32)
