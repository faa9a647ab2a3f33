"""Bases of intervals on a reference genome: a FASTA file of chromosomes or transcripts, indexed by pyfaidx."""

import hashlib
import importlib
import mmap
import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.common.download import cache_folder
from datamodules.common.messages import listed
from datamodules.dna.intervals import Intervals
from titans_seq.errors import InputError

OutOfBounds = Literal["refuse", "N"]

_COMPLEMENTS = str.maketrans("ACGTacgt", "TGCAtgca")  # other letters become N on both strands
_COMPLEMENTS_OF_RNA = {**_COMPLEMENTS, **str.maketrans("Uu", "Aa")}
_MITOCHONDRIA = {"MT", "M", "MtDNA", "mitochondrion_genome"}


class Lines(NamedTuple):
    """Line layout of a record in its FASTA file."""

    offset: int  # byte offset of the first base
    bases_per_line: int
    bytes_per_line: int  # including the line ending

    @classmethod
    def of(cls, entry: Any) -> "Lines":
        """Line layout from a record's entry in pyfaidx's index."""
        return cls(int(entry.offset), max(1, int(entry.lenc)), max(1, int(entry.lenb)))

    def byte(self, base: int) -> int:
        """Byte offset of a base; both count from 0."""
        line, column = divmod(base, self.bases_per_line)
        return self.offset + line * self.bytes_per_line + column


class Genome:
    """A reference genome in a FASTA file; only the requested intervals are read.

    Args:
        path: the uncompressed file; its index is built once, next to it or, if the folder is read-only, in the cache.
        aliases: treat as the same region `1` and `chr1`, `MT` and `chrM`, and a transcript with and without its
            version.
    """

    def __init__(self, path: Path, *, aliases: bool = False) -> None:
        self.path = path
        self._index = _open(path)
        # From the normalised name of a region to its name in the file.
        self._names: dict[str, str] = {}
        if aliases:
            for name in self._index.index:
                self._names.setdefault(plain_name(name), name)
        self.aliases = aliases

    @property
    def names(self) -> list[str]:
        """Names of the records, in file order."""
        return list(self._index.index)

    def name(self, region: str) -> str | None:
        """Name of `region` in the file, None if it is not there."""
        if region in self._index.index:
            return region
        return self._names.get(plain_name(region)) if self.aliases else None

    def own_names(self, regions: NDArray[np.str_]) -> NDArray[np.str_]:
        """Names in the file of `regions` (n,), which must all be there."""
        found, which = np.unique(regions, return_inverse=True)
        own: NDArray[np.str_] = np.array([self.name(str(region)) for region in found], dtype=np.str_)[which]
        return own

    def length(self, name: str) -> int:
        """Number of bases of the record `name`."""
        return int(self._index.index[name].rlen)

    def line(self, name: str) -> Lines:
        """Line layout of the record `name`."""
        return Lines.of(self._index.index[name])

    def texts(
        self,
        intervals: Intervals,
        locate: Callable[[int], str],
        *,
        out_of_bounds: OutOfBounds = "refuse",
        rna: bool = False,
    ) -> list[str]:
        """Return the letters of every interval on its own strand; with `rna`, U is complemented as T is.

        Args:
            intervals: the intervals to read.
            locate: returns the location of interval `i` in its file, for messages: `peaks.bed: line 7`.
            out_of_bounds: for an interval that extends past an end of its chromosome, "refuse" raises an error and "N"
                pads with N. One that lies outside altogether raises an error in both cases, since it was made for
                another genome. (The official code of GenomicBenchmarks truncates such an interval instead; none of the
                published lists has one.)
            rna: the file may contain U.

        Raises InputError for these intervals, and for regions that are not in the file.
        """
        names, lengths = self._find(intervals, locate)
        starts, ends = intervals.starts, intervals.ends
        wrong = (starts < 0) | (ends > lengths) if out_of_bounds == "refuse" else (starts >= lengths) | (ends <= 0)
        if wrong.any():
            row = int(wrong.argmax())
            touches = starts[row] < lengths[row] and ends[row] > 0
            fix = " Set data.beyond=N to pad with N." if touches else ""
            raise InputError(
                f"{locate(row)}: {intervals.regions[row]}:{starts[row]}-{ends[row]} extends beyond {names[row]!r} of "
                f"{self.path}, which has {lengths[row]} bases; {wrong.sum()} such intervals. Check that both are of "
                f"the same assembly.{fix}"
            )
        texts, complements = [], _COMPLEMENTS_OF_RNA if rna else _COMPLEMENTS
        rows = zip(names, starts.tolist(), ends.tolist(), lengths.tolist(), intervals.minus.tolist(), strict=True)
        for name, start, end, length, minus in rows:
            inside = self._index.fetch(name, max(0, start) + 1, min(end, length))
            text = "N" * max(0, -start) + inside + "N" * max(0, end - length)
            texts.append(text[::-1].translate(complements) if minus else text)
        return texts

    def _find(self, intervals: Intervals, locate: Callable[[int], str]) -> tuple[list[str], NDArray[np.int64]]:
        """Name in the file of every interval's region, and the length of that record."""
        regions, which = np.unique(intervals.regions, return_inverse=True)
        names = [self.name(str(region)) for region in regions]
        missing = [str(region) for region, name in zip(regions, names, strict=True) if name is None]
        if missing:
            row = int(np.isin(intervals.regions, missing).argmax())
            available = {plain_name(name) for name in self.names}
            same = not self.aliases and any(plain_name(region) in available for region in missing)
            hint = " If only the names differ, set data.aliases=true: it reads '1' as 'chr1'." if same else ""
            raise InputError(
                f"{locate(row)}: unknown region {str(intervals.regions[row])!r} in {self.path}; missing: "
                f"{listed(missing, 5)}; available: {listed(self.names, 5)}.{hint}"
            )
        found = [name for name in names if name is not None]
        lengths = np.array([self.length(name) for name in found], dtype=np.int64)
        return [found[i] for i in which], lengths[which]


def _open(path: Path) -> Any:
    """Open pyfaidx's index of a FASTA file; build it if it is missing or outdated."""
    try:
        pyfaidx = importlib.import_module("pyfaidx")
    except ModuleNotFoundError:
        raise InputError(f"{path}: reading intervals requires pyfaidx: pip install 'titans-seq[genomics]'") from None
    if not path.is_file():
        raise InputError(f"{path}: no such FASTA file")
    if path.suffix.lower() in (".gz", ".bgz", ".bz2", ".zip", ".xz", ".zst"):
        raise InputError(f"{path}: a compressed FASTA file cannot be indexed; decompress it: gunzip --keep {path}")
    try:
        with path.open("rb") as handle:
            beginning = handle.read(1 << 16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if b"\r" in beginning and b"\n" not in beginning:
        raise InputError(f"{path}: its lines end with a carriage return alone; expected line feeds")
    if beginning.startswith(BOM_UTF8):
        raise InputError(f"{path}: begins with a byte order mark, which is not supported; save it as UTF-8 without one")
    index = path.with_name(f"{path.name}.fai")
    if not index.exists() and not os.access(path.parent, os.W_OK):
        key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        index = cache_folder() / "fasta" / f"{key}.fai"
        index.parent.mkdir(parents=True, exist_ok=True)
    try:
        for _ in range(2):  # an index may be left from another file of this name: pyfaidx compares only times
            found = pyfaidx.Faidx(str(path), indexname=str(index), as_raw=True)
            if _matches_file(path, found.index):
                return found
            index.unlink()
        raise ValueError("its index does not match its lines")  # pyfaidx accepts a last line longer than the others
    # pyfaidx raises RuntimeError for some inconsistent line lengths.
    except (pyfaidx.FastaIndexingError, ValueError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()).partition(" Please report")[0]
        expected = "lines of one length within a record, without blanks or blank lines, and unique names"
        raise InputError(f"{path}: this FASTA file cannot be indexed: {reason}; expected {expected}") from None


def _matches_file(path: Path, index: Mapping[str, Any]) -> bool:
    """Whether every record of an index starts, ends its first line and ends at the same bytes as in the file."""
    if not path.stat().st_size:
        return not index
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = 0
        for name, entry in index.items():
            header = content[end : entry.offset].strip()
            if not end:  # comment lines may precede the first record
                header = header.rpartition(b"\n")[2]
            lines, length = Lines.of(entry), int(entry.rlen)
            first_end = lines.offset + lines.bases_per_line
            first = content[lines.offset : min(first_end, lines.offset + length)]
            if not header.startswith(b">") or header[1:].split()[:1] != [name.encode()] or b"\n" in first:
                return False
            if length >= lines.bases_per_line and content[first_end : lines.byte(lines.bases_per_line)].strip():
                return False
            last = lines.byte(length - 1)
            if length and not content[last : last + 1].strip():
                return False
            end = lines.byte(length)
        return not content[end:].strip()


def plain_name(name: str) -> str:
    """Normalised name of a region, the same for the spellings of all files."""
    bare = name.removeprefix("chr")
    if bare in _MITOCHONDRIA:
        return "MT"
    return re.sub(r"^(ENS\w*\d)\.\d+$", r"\1", bare)
