"""Corpora of unlabelled DNA for pre-training: many short sequences in memory, or a memory-mapped genome."""

from collections.abc import Sequence
from copy import copy
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.common.digest import digest_of_file, hash_arrays
from datamodules.common.messages import ambiguous_note
from datamodules.dna.genome import Genome
from datamodules.dna.overlap import strandless_numbers
from datamodules.dna.sequences import Sequences, joined_sequences
from datamodules.dna.tokenizer import Tokens, encode, reverse_complement
from titans_seq.errors import InputError

_SCAN = 1 << 24  # bases checked at a time


class Corpus(Protocol):
    """Named records of DNA, of which any part can be read."""

    @property
    def name(self) -> str:
        """Name for titles and messages."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the records."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of bases of each record, (n,)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user, one line each."""

    def digest(self) -> str:
        """Hash of the contents."""

    def without(self, held_out: Sequences) -> "Corpus":
        """Corpus without the records that are in `held_out`, on either strand; partial overlaps stay.

        Raises InputError if no record is left.
        """

    def read(self, record: int, start: int, end: int) -> Tokens:
        """Tokens of bases `start` to `end` (excluded) of a record, (end - start,)."""


class LoadedCorpus:
    """Sequences in memory without duplicates: repeats on either strand are left out and counted.

    Args:
        name: for titles and messages.
        sequences: the records.
        names: names of the records; None numbers them.
    """

    def __init__(self, name: str, sequences: Sequences, names: Sequence[str] | None = None) -> None:
        (numbers,) = strandless_numbers([sequences])
        _, first = np.unique(numbers, return_index=True)
        self.name = name
        self._hold(sequences, [str(row) for row in range(len(sequences))] if names is None else names, np.sort(first))
        self.notes = (*ambiguous_note(name, sequences.ambiguous), *_repeats_note(name, len(first), len(sequences)))

    def _hold(self, sequences: Sequences, names: Sequence[str], rows: NDArray[np.int64]) -> None:
        self.sequences = sequences.take(rows)
        self.names = [names[row] for row in rows.tolist()]
        self.lengths = self.sequences.lengths

    def without(self, held_out: Sequences) -> "LoadedCorpus":
        """See `Corpus`."""
        own, held = strandless_numbers([self.sequences, held_out])
        kept = np.flatnonzero(~np.isin(own, held))
        rest = copy(self)  # without the constructor: there are no duplicates left
        rest.notes = (*self.notes, *_excluded_note(self.name, len(kept), len(self.names)))
        rest._hold(self.sequences, self.names, kept)
        return rest

    def digest(self) -> str:
        """Hash of the bases."""
        return hash_arrays(self.sequences.tokens, self.lengths)

    def read(self, record: int, start: int, end: int) -> Tokens:
        """See `Corpus`."""
        return self.sequences[record][start:end]


class GenomeCorpus:
    """Memory-mapped FASTA file of any size: bases are read from disk when needed.

    Every letter is checked once, in pieces, before training.

    Args:
        path: the uncompressed file; its pyfaidx index is built if missing.
        rna: read U as T.
    """

    def __init__(self, path: Path, *, rna: bool = False) -> None:
        genome = Genome(path)
        self.name = path.name
        self.path = path
        self.rna = rna
        lengths = np.array([genome.length(name) for name in genome.names], dtype=np.int64)
        if not len(lengths) or not lengths.all():
            empty = [name for name, length in zip(genome.names, lengths, strict=True) if not length]
            raise InputError(f"{path}: {f'record {empty[0]!r} has no sequence' if empty else 'no records'}")
        self._bytes: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        self.names, self._lines, self.lengths = genome.names, [genome.line(name) for name in genome.names], lengths
        ambiguous = self._scan()
        kept = self._first_of_each()
        self.notes = (*ambiguous_note(self.name, ambiguous), *_repeats_note(self.name, len(kept), len(lengths)))
        self._keep(kept)

    def _keep(self, records: list[int]) -> None:
        self.names = [self.names[record] for record in records]
        self._lines = [self._lines[record] for record in records]
        self.lengths = self.lengths[records]

    def _first_of_each(self) -> list[int]:
        """Records that are not duplicates of earlier ones, on either strand."""
        _, which, count = np.unique(self.lengths, return_inverse=True, return_counts=True)
        first: dict[int | bytes, int] = {}
        for record, alone in enumerate(
            (count[which] == 1).tolist()
        ):  # of its length, as chromosomes are: no need to hash it
            first.setdefault(record if alone else self._strandless_digest(record), record)
        return list(first.values())

    def _strandless_digest(self, record: int) -> bytes:
        return _digest_of_both_strands(self.read(record, 0, int(self.lengths[record])))

    def without(self, held_out: Sequences) -> "GenomeCorpus":
        """See `Corpus`."""
        held = {_digest_of_both_strands(held_out[row]) for row in range(len(held_out))}
        sizes = set(held_out.lengths.tolist())
        lengths = self.lengths.tolist()
        kept = [
            row for row, size in enumerate(lengths) if size not in sizes or self._strandless_digest(row) not in held
        ]
        rest = copy(self)
        rest.notes = (*self.notes, *_excluded_note(self.name, len(kept), len(lengths)))
        rest._keep(kept)
        return rest

    def digest(self) -> str:
        """Hash of the file."""
        return digest_of_file(self.path)

    def read(self, record: int, start: int, end: int) -> Tokens:
        """See `Corpus`."""
        return self._encode(record, start, end)[0]

    def _encode(self, record: int, start: int, end: int) -> tuple[Tokens, int]:
        """Read tokens, and the number of letters that became N."""
        if start >= end:
            return np.empty(0, dtype=np.uint8), 0
        line = self._lines[record]
        first, last = line.byte(start), line.byte(end - 1)
        raw = np.asarray(self._bytes[first : last + 1])
        column = (np.arange(first, last + 1) - line.offset) % line.bytes_per_line
        text = raw[column < line.bases_per_line].tobytes().decode("latin-1")
        location = f"{self.path}: record {self.names[record]!r}, from base {start + 1} on"
        encoded = encode([text], lambda _: location, rna=self.rna)
        return encoded.tokens, encoded.ambiguous

    def _scan(self) -> int:
        """Read everything once and count the letters that become N; raises InputError for other letters than bases."""
        return sum(
            self._encode(record, start, min(start + _SCAN, length))[1]
            for record, length in enumerate(self.lengths.tolist())
            for start in range(0, length, _SCAN)
        )


class Joined(NamedTuple):
    """Several corpora read as one."""

    parts: tuple[Corpus, ...]
    name: str
    names: Sequence[str]
    lengths: NDArray[np.int64]
    notes: tuple[str, ...]
    firsts: NDArray[np.int64]  # number of the first record of every part

    def digest(self) -> str:
        """Hashes of the parts."""
        return " ".join(part.digest() for part in self.parts)

    def without(self, held_out: Sequences) -> Corpus:
        """See `Corpus`; every part must keep at least one record."""
        return joined([part.without(held_out) for part in self.parts])

    def read(self, record: int, start: int, end: int) -> Tokens:
        """See `Corpus`."""
        part = int(np.searchsorted(self.firsts, record, side="right")) - 1
        return self.parts[part].read(record - int(self.firsts[part]), start, end)


def joined(parts: Sequence[Corpus]) -> Corpus:
    """Join the records of `parts`, named `<part>:<record>`; duplicates across parts are left out if all are in memory.

    The name of three or more parts is that of the first and a count, as it is used in titles and messages.
    """
    if len(parts) == 1:
        return parts[0]
    names = [f"{part.name}:{name}" for part in parts for name in part.names]
    others = parts[1].name if len(parts) == 2 else f"{len(parts) - 1} more"
    name = f"{parts[0].name} + {others}"
    notes = tuple(note for part in parts for note in part.notes)
    if all(isinstance(part, LoadedCorpus) for part in parts):
        loaded = [part.sequences for part in parts if isinstance(part, LoadedCorpus)]
        whole = LoadedCorpus(name, joined_sequences(loaded), names)
        whole.notes = (*notes, *whole.notes)
        return whole
    counts = np.array([len(part.names) for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    crossing = "duplicates across these files are not removed, as one is memory-mapped: they can cross splits"
    notes = (*notes, f"{name}: {crossing}")
    return Joined(tuple(parts), name, names, lengths, notes, np.cumsum(counts) - counts)


def _digest_of_both_strands(tokens: Tokens) -> bytes:
    """Hash of a sequence, the same for its reverse complement."""
    return min(blake2b(each.tobytes(), digest_size=16).digest() for each in (tokens, reverse_complement(tokens)))


def _repeats_note(name: str, kept: int, count: int) -> tuple[str, ...]:
    if kept == count:
        return ()
    return (f"{name}: {count - kept:,} of {count:,} sequences are duplicates of others, on either strand; left out",)


def _excluded_note(name: str, kept: int, count: int) -> tuple[str, ...]:
    if not kept:
        raise InputError(f"{name}: all {count:,} sequences are in data.exclude: none is left to train on")
    return (f"{name}: {count - kept:,} of {count:,} sequences are identical to ones in data.exclude; left out",)
