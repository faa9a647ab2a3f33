"""Variant effects by a trained classifier: in-silico mutagenesis of a sequence, or the variants of a VCF file."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.common.messages import listed
from datamodules.dna.datasets.catalogue import read_unlabelled
from datamodules.dna.genome import Genome
from datamodules.dna.sequences import Sequences
from datamodules.dna.tokenizer import decode
from datamodules.dna.vcf import Variants, both_alleles, read_vcf
from titans_seq.batch import BASES
from titans_seq.errors import InputError
from titans_seq.experiment.classification.experiment import ClassificationExperiment
from titans_seq.experiment.classification.inference import print_ambiguous, score_sequences, softmax
from titans_seq.experiment.classification.plots import plot_variant_effects
from titans_seq.experiment.run.checkpoint import load
from titans_seq.experiment.run.output import check_table, check_writable, refuse_to_overwrite, write_table
from titans_seq.experiment.run.trainer import build_trainer
from titans_seq.tasks import ClassificationTask

_LETTERS = 4  # A, C, G, T: a base is never changed to N
_BLOCK = 1 << 24  # bases of mutated sequences, or of variants' windows, that are held in memory at a time


def mutagenesis(
    checkpoint: str | Path,
    source: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    record: str | None = None,
) -> pl.DataFrame:
    """Score every single-base substitution of a sequence (in-silico mutagenesis).

    Writes the table to `out` and a heat map next to it, as PNG. One row per substitution: `position` (from 1),
    `reference`, `alternative`, and for every class `probability_<class>` and `effect_<class>`, the change of its
    log-odds. `record` is the name of the sequence, required where `source` holds several.
    """
    out, source = Path(out), Path(source)
    check_table(out)
    check_writable(out.with_suffix(".png"))
    experiment, task = _load(checkpoint, overrides)
    refuse_to_overwrite(out, experiment.config, source)
    name, tokens = _select_sequence(experiment, source, record)
    places, letters = _substitutions(tokens)
    scores = _score_substitutions(experiment, task, tokens, places, letters)
    probabilities, odds = softmax(scores), _log_odds(scores)
    effects = odds[1:] - odds[0]
    bases = decode(tokens)
    table = pl.DataFrame(
        {
            "position": places + 1,
            "reference": [bases[place] for place in places],
            "alternative": [BASES[letter] for letter in letters],
            **{f"probability_{each}": probabilities[1:, k] for k, each in enumerate(task.classes)},
            **{f"effect_{each}": effects[:, k] for k, each in enumerate(task.classes)},
        }
    )
    write_table(table, out)
    plotted = 1 if len(task.classes) == 2 else int(scores[0].argmax())
    grid = np.full((_LETTERS, len(tokens)), np.nan)
    grid[letters, places] = effects[:, plotted]
    target = task.classes[plotted]
    before = f"log-odds of {target!r} {odds[0, plotted]:+.2f}, probability {probabilities[0, plotted]:.3f}"
    plot_variant_effects(
        out.with_suffix(".png"),
        effects=grid,
        sequence=bases,
        letters=BASES[:_LETTERS],
        title=f"{name}: effect of every single-nucleotide variant\nunchanged sequence: {before}",
        measure=f"change in the log-odds of {target!r}",
    )
    return table


def score_variants(
    checkpoint: str | Path, vcf: str | Path, reference: str | Path, out: str | Path, overrides: Iterable[str] = ()
) -> pl.DataFrame:
    """Score both alleles of the variants in a VCF file; write the table to `out`.

    Each allele is scored in a window of `data.length` bases of the genome; both alleles begin at the same position, in
    the middle of their windows. Scores are averaged over both strands unless `overrides` contain model.strand=one.

    One row per alternative allele: `region`, `position` (from 1), `id`, `reference`, `alternative`, and for every class
    `reference_<class>` and `alternative_<class>`, its probabilities, and `effect_<class>`, the change of its log-odds.
    """
    out = Path(out)
    check_table(out)
    overrides = list(overrides)
    experiment, task = _load(checkpoint, overrides)
    refuse_to_overwrite(out, experiment.config, vcf, reference)
    if experiment.config.model.strand == "one" and not any(each.startswith("model.strand=") for each in overrides):
        print(f"{checkpoint}: reads one strand; variants are scored by the mean of both; to change: model.strand=one")
        task.model.strand = "both_averaged"
    options = experiment.config.data
    if options.length is None:
        raise InputError("data.length must be set to the window around each variant, in bases; got null")
    longest = options.max_length
    if longest and longest < options.length:
        raise InputError(
            f"data.length={options.length} exceeds data.max_length={longest}, where sequences are cut, so that "
            f"variants in the middle of their windows would be lost; set data.length={longest} or less"
        )
    everything = read_vcf(Path(vcf).expanduser())
    if everything.left_out:
        print(f"{vcf}: {everything.left_out:,} alternatives that are not bases (such as <DEL>) are skipped")
    variants = everything.within(options.length)
    if len(variants) < len(everything):
        print(
            f"{vcf}: {len(everything) - len(variants):,} alternatives are skipped: REF or ALT is longer than "
            f"data.length={options.length}"
        )
    genome = Genome(Path(reference).expanduser(), aliases=options.aliases)
    variants.check_references(genome)
    scores, ambiguous = _score_alleles(experiment, task, variants, genome)
    if ambiguous:
        print(f"{reference}: {ambiguous:,} IUPAC letters in the windows around the variants were read as N")
    effects = _log_odds(scores[1]) - _log_odds(scores[0])
    columns = {"reference": softmax(scores[0]), "alternative": softmax(scores[1]), "effect": effects}
    table = pl.DataFrame(
        {
            "region": variants.regions,
            "position": [start + 1 for start in variants.starts],
            "id": variants.names,
            "reference": variants.references,
            "alternative": variants.alternatives,
            **{f"{kind}_{each}": v[:, k] for k, each in enumerate(task.classes) for kind, v in columns.items()},
        }
    )
    write_table(table, out)
    return table


def _score_alleles(
    experiment: ClassificationExperiment, task: ClassificationTask, variants: Variants, genome: Genome
) -> tuple[list[NDArray[np.float64]], int]:
    """Return class scores (n, K) of both alleles, and the number of letters in their windows read as N.

    Works in blocks of variants to bound memory.
    """
    trainer, length = build_trainer(experiment.config), experiment.config.data.length
    assert length
    scores: tuple[list[NDArray[np.float64]], ...] = ([], [])
    ambiguous, size = 0, max(1, _BLOCK // length)
    for first in range(0, len(variants), size):
        block = variants.take(range(first, min(first + size, len(variants))))
        alleles = [Sequences.read(texts, block.places.__getitem__) for texts in both_alleles(block, genome, length)]
        ambiguous += max(each.ambiguous for each in alleles)
        for found, each in zip(scores, alleles, strict=True):
            found.append(score_sequences(experiment.config.data, task, trainer, each))
    return [np.concatenate(found) for found in scores], ambiguous


def _load(checkpoint: str | Path, overrides: Iterable[str]) -> tuple[ClassificationExperiment, ClassificationTask]:
    experiment, task, _ = load(checkpoint, overrides, ClassificationExperiment)
    if experiment.config.trainer.limit_batches:
        raise InputError("trainer.limit_batches must be 0: all variants are scored")
    return experiment, task


def _select_sequence(
    experiment: ClassificationExperiment, source: Path, record: str | None
) -> tuple[str, NDArray[np.uint8]]:
    """Return the name and the tokens (T,) of the sequence to mutate."""
    options = experiment.config.data
    names, sequences = read_unlabelled(source.expanduser(), sequence=options.sequence, rna=options.rna)
    if record is None and len(names) == 1:
        record = names[0]
    if record is None or record not in names:
        found = f"no sequence {record!r}" if record else f"{len(names)} sequences"
        raise InputError(f"{source}: {found}; choose one with --record: {listed(names, 5)}")
    if (count := names.count(record)) > 1:
        raise InputError(f"{source}: {count} sequences are named {record!r}; names must be unique")
    tokens = sequences[names.index(record)]
    print_ambiguous(source, sequences)
    if options.max_length and len(tokens) > options.max_length:
        print(f"{source}: {record} is cut at data.max_length={options.max_length} of its {len(tokens):,} bases")
    return record, tokens[: options.max_length]


def _substitutions(tokens: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions and the alternative bases of all single-base substitutions: 3 per base, 4 per N."""
    places, letters = np.divmod(np.arange(_LETTERS * len(tokens)), _LETTERS)
    changed = letters != tokens[places]
    return places[changed], letters[changed]


def _score_substitutions(
    experiment: ClassificationExperiment,
    task: ClassificationTask,
    tokens: NDArray[np.uint8],
    places: NDArray[np.int64],
    letters: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return class scores of the sequence, then of each substitution.

    Works in blocks, because all mutated sequences together have 3 T^2 bases.
    """
    trainer, length = build_trainer(experiment.config), len(tokens)
    scores = [score_sequences(experiment.config.data, task, trainer, Sequences(tokens, np.array([length])))]
    size = max(1, _BLOCK // length)
    for first in range(0, len(places), size):
        block = slice(first, first + size)
        rows = np.tile(tokens, (len(places[block]), 1))
        rows[np.arange(len(rows)), places[block]] = letters[block]
        changed = Sequences(rows.ravel(), np.full(len(rows), length))
        scores.append(score_sequences(experiment.config.data, task, trainer, changed))
    return np.concatenate(scores)


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of each class against all others, (n, K); finite even where probabilities round to 1."""
    odds = np.empty_like(scores)
    for k in range(scores.shape[1]):
        others = np.delete(scores, k, axis=1)
        odds[:, k] = scores[:, k] - np.logaddexp.reduce(others, axis=1)
    return odds
