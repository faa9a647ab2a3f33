"""k-mers of many sequences, each encoded as one integer: two bits per base."""

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.sequences import Sequences, runs

MAX_K = 32  # bases that fit into 64 bits


def kmers(sequences: Sequences, k: int, *, both_strands: bool = False) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return the code of every k-mer without an N and the row of its sequence, both (m,), in order.

    With `both_strands`, a k-mer and its reverse complement have one code, the smaller of the two (canonical k-mers).

    Raises ValueError for k outside 1 to 32.
    """
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be between 1 and {MAX_K}; got {k}")
    codes, rows = [], []
    for part in runs(sequences.lengths):  # limits the intermediate codes to a few hundred megabytes
        lengths, start = sequences.lengths[part], sequences.starts[part.start]
        tokens = sequences.tokens[start : start + lengths.sum()]
        if len(tokens) < k:
            continue
        row = Sequences(tokens, lengths).rows()
        ambiguous = np.concatenate([[0], np.cumsum(tokens > 3)])
        valid = (row[k - 1 :] == row[: len(row) - k + 1]) & (ambiguous[k:] == ambiguous[:-k])
        code = _codes(tokens.astype(np.uint64) & np.uint64(3), k, last_base_lowest=True)[valid]
        if both_strands:
            opposite = np.uint64(3) - (tokens.astype(np.uint64) & np.uint64(3))
            code = np.minimum(code, _codes(opposite, k, last_base_lowest=False)[valid])
        codes.append(code)
        rows.append((row[: len(valid)][valid] + part.start).astype(np.int32))
    if not codes:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int32)
    return np.concatenate(codes), np.concatenate(rows)


def counts(sequences: Sequences, k: int) -> NDArray[np.float64]:
    """Count each of the 4^k k-mers in each sequence, (n, 4^k)."""
    codes, rows = kmers(sequences, k)
    size = 4**k
    flat = np.bincount(rows.astype(np.int64) * size + codes.astype(np.int64), minlength=len(sequences) * size)
    return flat.reshape(len(sequences), size).astype(np.float64)


def _codes(bases: NDArray[np.uint64], k: int, *, last_base_lowest: bool) -> NDArray[np.uint64]:
    """Codes of every window of k bases, (n - k + 1,): joined from windows of powers of two in log k passes."""
    window, length = bases, 1
    code, done = np.zeros(len(bases) + 1, dtype=np.uint64), 0
    while True:
        if k & length:
            size = len(bases) - done - length + 1
            before, after = code[:size], window[done : done + size]
            if last_base_lowest:
                code = (before << np.uint64(2 * length)) | after if done else after
            else:
                code = (after << np.uint64(2 * done)) | before if done else after
            done += length
        if done == k:
            return code
        size = len(window) - length
        left, right, bits = window[:size], window[length : length + size], np.uint64(2 * length)
        window = (left << bits) | right if last_base_lowest else (right << bits) | left
        length *= 2
