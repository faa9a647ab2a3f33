"""How the kernels' launches cut a sequence: pieces by chunks, segments by the room that states take, tiles."""

from collections.abc import Iterator
from math import ceil, sqrt
from typing import NamedTuple

from torch import Tensor

from titans_seq.ops.memory.arguments import Options
from titans_seq.ops.memory.triton.configs import CHUNK, MlpTiles, Tiles

# Of the states at the starts of a segment's tiles. So many fill a GPU, whatever the length.
SEGMENT_BYTES = 128 * 2**20


class TokenRange(NamedTuple):
    """Some tokens in a row: whole chunks, or a part of one."""

    first: int  # token
    stop: int
    begun: bool  # part of a chunk that began before it, and that takes its gradients there


def split_at_chunks(length: int, chunk_size: int, position: int) -> list[TokenRange]:
    """The rest of an open chunk, the whole chunks, and what is left over, which opens a chunk."""
    head = min(-position % chunk_size, length)
    whole = head + (length - head) // chunk_size * chunk_size
    cuts = [
        TokenRange(0, head, begun=True),
        TokenRange(head, whole, begun=False),
        TokenRange(whole, length, begun=False),
    ]
    return [piece for piece in cuts if piece.stop > piece.first]


class LaunchPlan(NamedTuple):
    """The arguments of the autograd functions that are no tensors."""

    options: Options
    chunk_size: int
    pieces: list[TokenRange]
    cut: Tiles | MlpTiles  # how the kernels cut their work

    @property
    def parts(self) -> int:
        """Tiles of a chunk."""
        return ceil(self.chunk_size / CHUNK)

    def count(self, piece: TokenRange) -> int:
        """How many tiles a piece has, all of whose chunks but the last are whole."""
        whole, rest = divmod(piece.stop - piece.first, self.chunk_size)
        return whole * self.parts + ceil(rest / CHUNK)

    def at(self, piece: TokenRange) -> str:
        """Where a piece's gradients are taken, as the kernels call it."""
        return "given" if piece.begun else "chunk" if self.parts > 1 else "tile"

    def place(self, segment: TokenRange) -> tuple[int, ...]:
        """The kernels' arguments first, stop, size, parts."""
        # What is begun is all of one chunk, tile after tile.
        parts = self.count(segment) if segment.begun else self.parts
        return segment.first, segment.stop, self.chunk_size, parts

    def opens_chunk(self) -> bool:
        """Whether a chunk begins in this call and does not end in it."""
        last = self.pieces[-1]
        return not last.begun and self.options.gradient == "chunk" and (last.stop - last.first) % self.chunk_size > 0

    def segments(self, weights: Tensor) -> list[TokenRange]:
        """The pieces, cut so that the states inside a segment and those between segments take little room."""
        return list(self._segments(2 * weights.numel() * weights.element_size()))

    def _segments(self, state_bytes: int) -> Iterator[TokenRange]:
        for piece in self.pieces:
            most = max(ceil(sqrt(self.count(piece))), SEGMENT_BYTES // state_bytes)
            chunks = self.options.checkpoint_every or most // self.parts
            size = chunks * self.chunk_size or most * CHUNK  # long chunks are cut, too
            for first in range(piece.first, piece.stop, size):
                begun = piece.begun or (size < self.chunk_size and first > piece.first)
                yield TokenRange(first, min(first + size, piece.stop), begun)
