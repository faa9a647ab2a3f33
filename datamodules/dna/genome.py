"""Bases of intervals on a reference: a FASTA file of chromosomes or transcripts, read through pyfaidx's index."""

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

Beyond = Literal["refuse", "N"]

_COMPLEMENTS = str.maketrans("ACGTacgt", "TGCAtgca")  # other letters become N, either way round
_COMPLEMENTS_OF_RNA = {**_COMPLEMENTS, **str.maketrans("Uu", "Aa")}
_MITOCHONDRIA = {"MT", "M", "MtDNA", "mitochondrion_genome"}


class Lines(NamedTuple):
    """How the bases of a record lie in its file."""

    offset: int  # bytes before its first base
    bases_per_line: int
    bytes_per_line: int  # the line's end included

    @classmethod
    def of(cls, entry: Any) -> "Lines":
        """Those of a record's entry in pyfaidx's index."""
        return cls(int(entry.offset), max(1, int(entry.lenc)), max(1, int(entry.lenb)))

    def byte(self, base: int) -> int:
        """The byte that holds a base, both from 0."""
        line, column = divmod(base, self.bases_per_line)
        return self.offset + line * self.bytes_per_line + column


class Genome:
    """A reference in a FASTA file, of which only what is asked for is read.

    Args:
        path: the file, not compressed; its index is built once, beside it or, where that is not allowed, in the cache.
        aliases: take `1` and `chr1` for the same, `MT` and `chrM`, and a transcript with and without its version.
    """

    def __init__(self, path: Path, *, aliases: bool = False) -> None:
        self.path = path
        self._index = _open(path)
        # From every name that may be asked for to the file's own.
        self._names: dict[str, str] = {}
        if aliases:
            for name in self._index.index:
                self._names.setdefault(plain_name(name), name)
        self.aliases = aliases

    @property
    def names(self) -> list[str]:
        """The names of the records, in the file's order."""
        return list(self._index.index)

    def name(self, region: str) -> str | None:
        """The file's name for `region`, None if it has none."""
        if region in self._index.index:
            return region
        return self._names.get(plain_name(region)) if self.aliases else None

    def own_names(self, regions: NDArray[np.str_]) -> NDArray[np.str_]:
        """The file's names for `regions` (n,), which it has."""
        found, which = np.unique(regions, return_inverse=True)
        own: NDArray[np.str_] = np.array([self.name(str(region)) for region in found], dtype=np.str_)[which]
        return own

    def length(self, name: str) -> int:
        """Bases of the record `name`."""
        return int(self._index.index[name].rlen)

    def line(self, name: str) -> Lines:
        """Where the bases of the record `name` lie in the file."""
        return Lines.of(self._index.index[name])

    def texts(
        self, intervals: Intervals, place: Callable[[int], str], *, beyond: Beyond = "refuse", rna: bool = False
    ) -> list[str]:
        """The letters of every interval, in its own strand's direction; with `rna` U is what T is.

        An interval that reaches over its chromosome's ends is refused, or filled up with N; one that lies outside
        altogether is refused either way, since it was made for another genome. (The official composer of the genomic
        benchmarks cuts such an interval short instead; none of the published lists has one.)

        Raises InputError for these, and for regions that the file does not hold.
        """
        names, lengths = self._find(intervals, place)
        starts, ends = intervals.starts, intervals.ends
        wrong = (starts < 0) | (ends > lengths) if beyond == "refuse" else (starts >= lengths) | (ends <= 0)
        if wrong.any():
            row = int(wrong.argmax())
            touches = starts[row] < lengths[row] and ends[row] > 0
            remedy = " data.beyond=N fills up with N." if touches else ""
            raise InputError(
                f"{place(row)}: {intervals.regions[row]}:{starts[row]}-{ends[row]} reaches beyond {names[row]!r} of "
                f"{self.path}, which has {lengths[row]} bases; {wrong.sum()} such intervals. Is it another "
                f"assembly?{remedy}"
            )
        texts, complements = [], _COMPLEMENTS_OF_RNA if rna else _COMPLEMENTS
        rows = zip(names, starts.tolist(), ends.tolist(), lengths.tolist(), intervals.minus.tolist(), strict=True)
        for name, start, end, length, minus in rows:
            inside = self._index.fetch(name, max(0, start) + 1, min(end, length))
            text = "N" * max(0, -start) + inside + "N" * max(0, end - length)
            texts.append(text[::-1].translate(complements) if minus else text)
        return texts

    def _find(self, intervals: Intervals, place: Callable[[int], str]) -> tuple[list[str], NDArray[np.int64]]:
        """The file's name for every interval's region, and that record's length."""
        regions, which = np.unique(intervals.regions, return_inverse=True)
        names = [self.name(str(region)) for region in regions]
        missing = [str(region) for region, name in zip(regions, names, strict=True) if name is None]
        if missing:
            row = int(np.isin(intervals.regions, missing).argmax())
            holds = {plain_name(name) for name in self.names}
            same = not self.aliases and any(plain_name(region) in holds for region in missing)
            hint = " Are they the same under other names? data.aliases=true reads '1' as 'chr1'." if same else ""
            raise InputError(
                f"{place(row)}: no region {str(intervals.regions[row])!r} in {self.path}; missing: "
                f"{listed(missing, 5)}; there are: {listed(self.names, 5)}.{hint}"
            )
        found = [name for name in names if name is not None]
        lengths = np.array([self.length(name) for name in found], dtype=np.int64)
        return [found[i] for i in which], lengths[which]


def _open(path: Path) -> Any:
    """pyfaidx's index of a FASTA file, made if there is none or an old one."""
    try:
        pyfaidx = importlib.import_module("pyfaidx")
    except ModuleNotFoundError:
        raise InputError(f"{path}: intervals are read with pyfaidx: pip install 'titans-seq[genomics]'") from None
    if not path.is_file():
        raise InputError(f"{path}: no such FASTA file")
    if path.suffix.lower() in (".gz", ".bgz", ".bz2", ".zip", ".xz", ".zst"):
        raise InputError(f"{path}: a compressed FASTA file has no index; decompress it: gunzip --keep {path}")
    try:
        with path.open("rb") as handle:
            beginning = handle.read(1 << 16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if b"\r" in beginning and b"\n" not in beginning:
        raise InputError(
            f"{path}: its lines end with a carriage return alone, which no index knows; needed: line feeds"
        )
    if beginning.startswith(BOM_UTF8):
        raise InputError(f"{path}: begins with a byte order mark, which no index knows; save it as plain UTF-8")
    index = path.with_name(f"{path.name}.fai")
    if not index.exists() and not os.access(path.parent, os.W_OK):
        key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        index = cache_folder() / "fasta" / f"{key}.fai"
        index.parent.mkdir(parents=True, exist_ok=True)
    try:
        for _ in range(2):  # the first may be of an earlier file of this name: pyfaidx compares times alone
            found = pyfaidx.Faidx(str(path), indexname=str(index), as_raw=True)
            if _tells_of(path, found.index):
                return found
            index.unlink()
        raise ValueError("the index of its lines does not lead to its bases")  # a last line may be the longest for it
    # RuntimeError is its answer to some inconsistent line lengths.
    except (pyfaidx.FastaIndexingError, ValueError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()).partition(" Please report")[0]
        needed = "lines of one length within a record, no blanks or blank lines among them, no name twice"
        raise InputError(f"{path}: not a FASTA file that can be indexed: {reason}; needed: {needed}") from None


def _tells_of(path: Path, index: Mapping[str, Any]) -> bool:
    """Whether every record of an index begins, breaks its first line and ends where the file's does."""
    if not path.stat().st_size:
        return not index
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = 0
        for name, entry in index.items():
            header = content[end : entry.offset].strip()
            if not end:  # comments may stand before the first record
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
    """What a region is called in all files."""
    bare = name.removeprefix("chr")
    if bare in _MITOCHONDRIA:
        return "MT"
    return re.sub(r"^(ENS\w*\d)\.\d+$", r"\1", bare)
