"""What a trained classifier makes of changes of a sequence: every single base, or the variants of a VCF file."""

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

_LETTERS = 4  # that a base is changed into: N is none
_BLOCK = 1 << 24  # bases of changed sequences, or of variants' windows, that are made at a time


def mutagenesis(
    checkpoint: str | Path,
    source: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    record: str | None = None,
) -> pl.DataFrame:
    """Score every single-base change of one sequence; write the table to `out` and a heat map beside it, as PNG.

    A row per change: `position` (from 1), `reference`, `alternative`, and for every class `probability_<class>` and
    `effect_<class>`, the change of its log-odds. `record` names the sequence where `source` holds several.
    """
    out, source = Path(out), Path(source)
    check_table(out)
    check_writable(out.with_suffix(".png"))
    experiment, task = _load(checkpoint, overrides)
    refuse_to_overwrite(out, experiment.config, source)
    name, tokens = _choose(experiment, source, record)
    places, letters = _changes(tokens)
    scores = _score_changes(experiment, task, tokens, places, letters)
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
    shown_class = 1 if len(task.classes) == 2 else int(scores[0].argmax())
    grid = np.full((_LETTERS, len(tokens)), np.nan)
    grid[letters, places] = effects[:, shown_class]
    title = f"{name}: change of the log-odds of {task.classes[shown_class]!r}, now {odds[0, shown_class]:+.2f}"
    plot_variant_effects(out.with_suffix(".png"), effects=grid, sequence=bases, letters=BASES[:_LETTERS], title=title)
    return table


def score_variants(
    checkpoint: str | Path, vcf: str | Path, reference: str | Path, out: str | Path, overrides: Iterable[str] = ()
) -> pl.DataFrame:
    """Score the variants of a VCF file in windows of `data.length` bases of a genome; write the table to `out`.

    Both alleles begin at the same place of windows of the same length, in the middle. Both strands are averaged, unless
    `overrides` say model.strand=one.

    A row per alternative: `region`, `position` (from 1), `id`, `reference`, `alternative`, and for every class
    `reference_<class>` and `alternative_<class>`, its probabilities, and `effect_<class>`, the change of its log-odds.
    """
    out = Path(out)
    check_table(out)
    overrides = list(overrides)
    experiment, task = _load(checkpoint, overrides)
    refuse_to_overwrite(out, experiment.config, vcf, reference)
    if experiment.config.model.strand == "one" and not any(word.startswith("model.strand=") for word in overrides):
        print(f"{checkpoint}: reads one strand; variants are scored by the mean of both, unless model.strand=one")
        task.model.strand = "both_averaged"
    options = experiment.config.data
    if options.length is None:
        raise InputError("data.length is null: set it to the bases of the window around a variant that is scored")
    longest = options.max_length
    if longest and longest < options.length:
        raise InputError(
            f"data.length={options.length} exceeds data.max_length={longest}, where sequences are cut: variants in the "
            f"middle of their windows would be lost; set data.length={longest} or less"
        )
    everything = read_vcf(Path(vcf).expanduser())
    if everything.left_out:
        print(f"{vcf}: {everything.left_out:,} alternatives that are no letters (such as <DEL>) are left out")
    variants = everything.within(options.length)
    if len(variants) < len(everything):
        print(
            f"{vcf}: {len(everything) - len(variants):,} alternatives are left out: REF or ALT is longer than "
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
    """Class scores (n, K) of reference and alternative, and how many letters around them became N; in blocks."""
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
        raise InputError("trainer.limit_batches: all variants are scored; set it to 0")
    return experiment, task


def _choose(experiment: ClassificationExperiment, source: Path, record: str | None) -> tuple[str, NDArray[np.uint8]]:
    """Name and tokens of the sequence to be changed."""
    options = experiment.config.data
    names, sequences = read_unlabelled(source.expanduser(), sequence=options.sequence, rna=options.rna)
    if record is None and len(names) == 1:
        record = names[0]
    if record is None or record not in names:
        asked = f"no sequence {record!r}" if record else f"{len(names)} sequences"
        raise InputError(f"{source}: {asked}; name one with --record: {listed(names, 5)}")
    if (count := names.count(record)) > 1:
        raise InputError(f"{source}: {count} sequences are called {record!r}; give each a name of its own")
    tokens = sequences[names.index(record)]
    print_ambiguous(source, sequences)
    if options.max_length and len(tokens) > options.max_length:
        print(f"{source}: {record} is cut at data.max_length={options.max_length} of its {len(tokens):,} bases")
    return record, tokens[: options.max_length]


def _changes(tokens: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places and new letters of all single-base changes."""
    places, letters = np.divmod(np.arange(_LETTERS * len(tokens)), _LETTERS)
    changed = letters != tokens[places]
    return places[changed], letters[changed]


def _score_changes(
    experiment: ClassificationExperiment,
    task: ClassificationTask,
    tokens: NDArray[np.uint8],
    places: NDArray[np.int64],
    letters: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Class scores of the sequence, then of each change: a block at a time, for all together are L times 3 L bases."""
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
    """Log-odds of each class (n, K) against all others, from scores (n, K): finite where probabilities round to 1."""
    odds = np.empty_like(scores)
    for k in range(scores.shape[1]):
        others = np.delete(scores, k, axis=1)
        odds[:, k] = scores[:, k] - np.logaddexp.reduce(others, axis=1)
    return odds
