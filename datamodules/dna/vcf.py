"""Variants of a genome from a VCF file, with the surrounding bases."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.common.reading import read_text
from datamodules.dna.genome import Genome
from datamodules.dna.intervals import Intervals
from titans_seq.errors import InputError

_LETTERS = set("ACGTN")
# Base that a VCF file gives for an ambiguity code of the reference: the alphabetically first (VCF 4.3, REF).
_FIRST_OF = dict(zip("RYSWKMBDHV", "ACCAGACAAA", strict=True))


@dataclass
class Variants:
    """n variants of a genome, with one alternative allele each."""

    places: list[str] = field(default_factory=list)  # location of each in the file, for messages
    regions: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # 0-based
    names: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)  # letters, upper case
    alternatives: list[str] = field(default_factory=list)
    left_out: int = 0  # symbolic alternatives, such as <DEL> and *

    def __len__(self) -> int:
        return len(self.places)

    def within(self, length: int) -> "Variants":
        """Variants whose alleles both have at most `length` letters; raises InputError if there are none."""
        sizes = [max(map(len, pair)) for pair in zip(self.references, self.alternatives, strict=True)]
        kept = [row for row, size in enumerate(sizes) if size <= length]
        if not kept:
            raise InputError(
                f"{self.places[0]}: REF or ALT has {sizes[0]} letters, more than the window of data.length={length}, "
                f"as in all {len(self)} variants; set data.length to a larger number"
            )
        return self.take(kept)

    def take(self, rows: Sequence[int]) -> "Variants":
        """The variants `rows`, in that order."""
        names = ("places", "regions", "starts", "names", "references", "alternatives")
        columns: dict[str, Any] = {name: [getattr(self, name)[row] for row in rows] for name in names}
        return replace(self, **columns)

    def check_references(self, genome: Genome) -> None:
        """Raise InputError if the genome does not have a variant's REF at its position."""
        starts = np.array(self.starts, dtype=np.int64)
        sizes = np.array([len(letters) for letters in self.references], dtype=np.int64)
        minus = np.zeros(len(self), dtype=np.bool_)
        intervals = Intervals(np.array(self.regions), starts, starts + sizes, minus)
        # A REF that extends past its chromosome is compared with N there.
        there = genome.texts(intervals, self.places.__getitem__, out_of_bounds="N")
        wrong = [row for row, letters in enumerate(there) if not _agrees(self.references[row], letters.upper())]
        if wrong:
            row = wrong[0]
            raise InputError(
                f"{self.places[row]}: REF is {self.references[row]!r}, but {genome.path} has {there[row].upper()!r} at "
                f"{self.regions[row]}:{self.starts[row] + 1}; {len(wrong)} of {len(self)} variants. Check that "
                "both are of the same assembly."
            )


def read_vcf(path: Path) -> Variants:
    """Read the variants of a VCF file, which may be gzipped; a line with several alternatives gives several variants.

    Raises InputError for a line that is not a variant, and if there are no variants.
    """
    found = Variants()
    for number, line in enumerate(read_text(path, "VCF").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        placed = len(fields) >= 5 and fields[1].isdecimal() and int(fields[1]) >= 1
        if not (placed and fields[3] and set(fields[3].upper()) <= _LETTERS):
            wanted = "chromosome, position (from 1), id, REF in letters, ALT"
            raise InputError(f"{path}: line {number}: expected {wanted}; got {line[:60]!r}")
        for alternative in fields[4].strip().upper().split(","):
            if _is_symbolic(alternative):
                found.left_out += 1
                continue
            if not alternative or not set(alternative) <= _LETTERS:
                wanted = "A, C, G, T and N, <...>, *, . or a breakend, separated by commas"
                raise InputError(f"{path}: line {number}: ALT is {fields[4][:60]!r}; expected {wanted}")
            found.places.append(f"{path}: line {number}")
            found.regions.append(fields[0])
            found.starts.append(int(fields[1]) - 1)
            found.names.append(fields[2])
            found.references.append(fields[3].upper())
            found.alternatives.append(alternative)
    if not found.places:
        more = f"; {found.left_out} symbolic alternatives were left out" if found.left_out else ""
        raise InputError(f"{path}: no variants{more}")
    return found


def _is_symbolic(alternative: str) -> bool:
    """Whether an ALT is symbolic by the format: <DEL>, an overlapping deletion, missing, or a breakend."""
    breakend = "[" in alternative or "]" in alternative or alternative.startswith(".") or alternative.endswith(".")
    return breakend or alternative == "*" or (alternative.startswith("<") and alternative.endswith(">"))


def both_alleles(variants: Variants, genome: Genome, length: int) -> tuple[list[str], list[str]]:
    """Return windows of `length` bases around each variant, with the reference and with the alternative allele.

    Both windows have this length, and the same bases before the variant; the longer allele is in the middle. (A model
    that responds to sequence length would otherwise score the length of an insertion or deletion.) Windows are padded
    with N past a chromosome's ends. No allele may be longer than the window, and REF must equal the genome: see
    `Variants.within` and `check_references`.
    """
    starts = np.array(variants.starts, dtype=np.int64)
    sizes = np.array([len(letters) for letters in variants.references], dtype=np.int64)
    new_sizes = np.array([len(letters) for letters in variants.alternatives], dtype=np.int64)
    left = (length - np.maximum(sizes, new_sizes)) // 2
    minus, locate = np.zeros(len(variants), dtype=np.bool_), variants.places.__getitem__
    right = (
        length - left - np.minimum(sizes, new_sizes)
    )  # bases that the window with the shorter allele needs after REF
    around = Intervals(np.array(variants.regions), starts - left, starts + sizes + right, minus)
    texts = [text.upper() for text in genome.texts(around, locate, out_of_bounds="N")]
    flanks = [(text[:n], text[n + size :]) for text, n, size in zip(texts, left.tolist(), sizes.tolist(), strict=True)]
    of_reference, of_alternative = (
        [(before + allele + after)[:length] for (before, after), allele in zip(flanks, alleles, strict=True)]
        for alleles in (variants.references, variants.alternatives)
    )
    return of_reference, of_alternative


def _agrees(reference: str, there: str) -> bool:
    """Whether REF equals the genome, except where the genome has an ambiguity code."""
    return len(reference) == len(there) and all(
        base in (letter, _FIRST_OF.get(letter), "N" if letter in _FIRST_OF else letter)
        for base, letter in zip(reference, there, strict=True)
    )
