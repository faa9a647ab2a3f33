"""Launch plan: a sequence is split into pieces at chunk boundaries, segments by the memory of the states, and tiles."""

from collections.abc import Iterator
from math import ceil, sqrt
from typing import NamedTuple

from torch import Tensor

from titans_seq.ops.memory.arguments import Options
from titans_seq.ops.memory.triton.configs import CHUNK, MlpTiles, Tiles

# Size of the states at the starts of a segment's tiles: enough work to fill a GPU, independent of the length.
SEGMENT_BYTES = 128 * 2**20


class TokenRange(NamedTuple):
    """Range of tokens: whole chunks, or part of one."""

    first: int  # token
    stop: int
    continues_chunk: bool  # part of a chunk that started earlier, where its gradients are taken


def split_at_chunks(length: int, chunk_size: int, position: int) -> list[TokenRange]:
    """Split tokens into the rest of a partial chunk, the whole chunks, and a remainder that starts a partial chunk."""
    head = min(-position % chunk_size, length)
    whole = head + (length - head) // chunk_size * chunk_size
    cuts = [
        TokenRange(0, head, continues_chunk=True),
        TokenRange(head, whole, continues_chunk=False),
        TokenRange(whole, length, continues_chunk=False),
    ]
    return [piece for piece in cuts if piece.stop > piece.first]


class LaunchPlan(NamedTuple):
    """Non-tensor arguments of the autograd functions."""

    options: Options
    chunk_size: int
    pieces: list[TokenRange]
    tiles: Tiles | MlpTiles  # compile-time parameters of the kernels

    @property
    def parts(self) -> int:
        """Number of tiles per chunk."""
        return ceil(self.chunk_size / CHUNK)

    def count(self, piece: TokenRange) -> int:
        """Return the number of tiles of a piece, all of whose chunks but the last are whole."""
        whole, rest = divmod(piece.stop - piece.first, self.chunk_size)
        return whole * self.parts + ceil(rest / CHUNK)

    def at(self, piece: TokenRange) -> str:
        """Return where a piece's gradients are taken, the kernels' constant AT."""
        return "given" if piece.continues_chunk else "chunk" if self.parts > 1 else "tile"

    def kernel_arguments(self, segment: TokenRange) -> tuple[int, ...]:
        """Return the kernel arguments first, stop, size, parts."""
        # A segment that continues a chunk lies within that chunk, so all its tiles are parts of it.
        parts = self.count(segment) if segment.continues_chunk else self.parts
        return segment.first, segment.stop, self.chunk_size, parts

    def ends_in_partial_chunk(self) -> bool:
        """Whether a chunk starts in this call and does not end in it."""
        last = self.pieces[-1]
        return (
            not last.continues_chunk
            and self.options.gradient == "chunk"
            and (last.stop - last.first) % self.chunk_size > 0
        )

    def segments(self, weights: Tensor) -> list[TokenRange]:
        """Split the pieces so that states inside a segment and states between segments take little memory."""
        return list(self._segments(2 * weights.numel() * weights.element_size()))

    def _segments(self, state_bytes: int) -> Iterator[TokenRange]:
        for piece in self.pieces:
            most = max(ceil(sqrt(self.count(piece))), SEGMENT_BYTES // state_bytes)
            chunks = self.options.checkpoint_every or most // self.parts
            size = chunks * self.chunk_size or most * CHUNK  # long chunks are split as well
            for first in range(piece.first, piece.stop, size):
                continues_chunk = piece.continues_chunk or (size < self.chunk_size and first > piece.first)
                yield TokenRange(first, min(first + size, piece.stop), continues_chunk)
