"""Launches of the kernels that do not use the memory's state: decay tables before the scans, gate gradients after.

Shared by both depths. Importing this file imports Triton. N tiles of C tokens, G = batch x heads.
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
    """Outputs of `matrix_prepare` for a segment."""

    coefficients: Tensor  # (N, G, SHARES, C)
    scores: Tensor  # (N, G, C, C), like all that follow
    writes: Tensor
    past: Tensor  # for online gradients, like `inverse`
    inverse: Tensor


class GateGradients(NamedTuple):
    """Gradients of the scratch tensors that depend on the gates."""

    coefficients: Tensor
    writes: Tensor
    past: Tensor


class GateKernels:
    """Launches of both kernels on one call's tokens, a segment at a time."""

    def __init__(self, plan: LaunchPlan, tokens: Tokens, states: int, tiles: Tiles | MlpTiles) -> None:
        self.plan = plan
        self.tokens = tokens
        self.states = states  # G
        self.tiles = tiles

    def prepare(self, segment: TokenRange) -> Scratch:
        """Compute the values of a segment that do not depend on the memory's state."""
        q, k, _, *gates = self.tokens
        settings = self.tiles.settings("matrix_prepare")
        coefficients, writes = self._coefficients(segment), self._table(segment)
        scores = torch.empty_like(writes, dtype=self.tiles.operand)
        past, inverse = (torch.empty_like(writes) if settings["ONLINE"] else writes for _ in range(2))
        scratch = Scratch(coefficients, scores, writes, past, inverse)
        matrix_prepare[writes.shape[:2]](q, k, *gates, *scratch, *self.kernel_arguments(segment), **settings)
        return scratch

    def gradients(self, segment: TokenRange) -> GateGradients:
        """Allocate buffers for the gradients."""
        writes = self._table(segment)
        past = torch.empty_like(writes) if self.tiles.settings("matrix_prepare")["ONLINE"] else writes
        return GateGradients(self._coefficients(segment), writes, past)

    def gates_backward(
        self, segment: TokenRange, scratch: Scratch, gradients: GateGradients, d_gates: Sequence[Tensor]
    ) -> None:
        """Write the gates' gradients to `d_gates`."""
        online = self.tiles.settings("matrix_prepare")["ONLINE"]
        gates_backward[scratch.writes.shape[:2]](
            *self.tokens[3:],
            scratch.coefficients,
            *gradients,
            *d_gates,
            *self.kernel_arguments(segment),
            **self.tiles.settings("gates_backward"),
            PAST=online and self.plan.options.outer_gradient == "exact",
        )

    def kernel_arguments(self, segment: TokenRange) -> tuple[int, ...]:
        """Return the kernel arguments heads, sequence, first, stop, size, parts."""
        _, sequence, heads, _ = self.tokens.q.shape
        return heads, sequence, *self.plan.kernel_arguments(segment)

    def _coefficients(self, segment: TokenRange) -> Tensor:
        return self._new(segment, SHARES.value, CHUNK)

    def _table(self, segment: TokenRange) -> Tensor:
        return self._new(segment, CHUNK, CHUNK)

    def _new(self, segment: TokenRange, *shape: int) -> Tensor:
        return self.tokens.q.new_empty(self.plan.count(segment), self.states, *shape, dtype=torch.float32)
