"""What a trained classifier makes of changes of a sequence: every single base, or the variants of a VCF file."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.catalogue import read_unlabelled
from datamodules.dna import decode
from datamodules.genome import Genome
from datamodules.messages import shown
from datamodules.sequences import Sequences
from datamodules.vcf import both_alleles, read_vcf
from titans_seq.batch import BASES
from titans_seq.errors import InputError
from titans_seq.experiment.build import build_trainer
from titans_seq.experiment.classification import ClassificationRecipe, score_sequences, softmax
from titans_seq.experiment.evaluate import check_table, check_writable, load_task, write_table
from titans_seq.plots import plot_mutations
from titans_seq.tasks import ClassificationTask

_LETTERS = 4  # that a base is changed into: N is none


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
    recipe, task = _load(checkpoint, overrides)
    name, tokens = _choose(recipe, source, record)
    rows, places, letters = _changes(tokens)
    scores = score_sequences(recipe, task, build_trainer(recipe.config), Sequences(*rows))
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
    plot_mutations(out.with_suffix(".png"), effects=grid, sequence=bases, letters=BASES[:_LETTERS], title=title)
    return table


def score_variants(
    checkpoint: str | Path, vcf: str | Path, reference: str | Path, out: str | Path, overrides: Iterable[str] = ()
) -> pl.DataFrame:
    """Score the variants of a VCF file in windows of `data.length` bases of a genome; write the table to `out`.

    Both strands are averaged, unless `overrides` say model.strand=one.

    A row per alternative: `region`, `position` (from 1), `id`, `reference`, `alternative`, and for every class
    `reference_<class>` and `alternative_<class>`, its probabilities, and `effect_<class>`, the change of its log-odds.
    """
    out = Path(out)
    check_table(out)
    overrides = list(overrides)
    recipe, task = _load(checkpoint, overrides)
    if recipe.config.model.strand == "one" and not any(word.startswith("model.strand=") for word in overrides):
        task.model.strand = "both_averaged"
    options = recipe.config.data
    if options.length is None:
        raise InputError("data.length is null: set it to the bases of the window around a variant that is scored")
    longest = options.max_length
    if longest and longest < options.length:
        raise InputError(
            f"data.length={options.length} exceeds data.max_length={longest}, where sequences are cut: variants in the "
            f"middle of their windows would be lost; set data.length={longest} or less"
        )
    variants = read_vcf(Path(vcf).expanduser())
    if variants.left_out:
        print(f"{vcf}: {variants.left_out:,} alternatives that are no letters (such as <DEL>) are left out")
    genome = Genome(Path(reference).expanduser(), aliases=options.aliases)
    texts = both_alleles(variants, genome, options.length)
    cut = sum(max(map(len, pair)) > longest for pair in zip(*texts, strict=True)) if longest else 0
    if cut:
        print(f"{vcf}: the windows of {cut:,} of {len(variants):,} variants are cut at data.max_length={longest} bases")
    place = variants.places.__getitem__
    trainer = build_trainer(recipe.config)
    scores = [score_sequences(recipe, task, trainer, Sequences.read(each, place)) for each in texts]
    effects = _log_odds(scores[1]) - _log_odds(scores[0])
    columns = {"reference": softmax(scores[0]), "alternative": softmax(scores[1]), "effect": effects}
    count = len(scores[1])  # trainer.limit_batches
    table = pl.DataFrame(
        {
            "region": variants.regions[:count],
            "position": [start + 1 for start in variants.starts[:count]],
            "id": variants.names[:count],
            "reference": variants.references[:count],
            "alternative": variants.alternatives[:count],
            **{f"{kind}_{each}": v[:, k] for k, each in enumerate(task.classes) for kind, v in columns.items()},
        }
    )
    write_table(table, out)
    return table


def _load(checkpoint: str | Path, overrides: Iterable[str]) -> tuple[ClassificationRecipe, ClassificationTask]:
    recipe, task = load_task(checkpoint, overrides)
    if not isinstance(recipe, ClassificationRecipe):
        raise InputError(f"{checkpoint}: is of task.name={recipe.config.task.name}; needed: classification")
    if recipe.config.trainer.limit_batches:
        raise InputError("trainer.limit_batches: all changes are scored; set it to 0")
    return recipe, task


def _choose(recipe: ClassificationRecipe, source: Path, record: str | None) -> tuple[str, NDArray[np.uint8]]:
    """Name and tokens of the sequence to be changed."""
    options = recipe.config.data
    names, sequences = read_unlabelled(source.expanduser(), sequence=options.sequence, rna=options.rna)
    if record is None and len(names) == 1:
        record = names[0]
    if record is None or record not in names:
        asked = f"no sequence {record!r}" if record else f"{len(names)} sequences"
        raise InputError(f"{source}: {asked}; name one with --record: {shown(names, 5)}")
    if (count := names.count(record)) > 1:
        raise InputError(f"{source}: {count} sequences are called {record!r}; give each a name of its own")
    tokens = sequences[names.index(record)]
    if options.max_length and len(tokens) > options.max_length:
        print(f"{source}: {record} is cut at data.max_length={options.max_length} of its {len(tokens):,} bases")
    return record, tokens[: options.max_length]


def _changes(
    tokens: NDArray[np.uint8],
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.int64], NDArray[np.int64]]:
    """The sequence and all its single-base changes end to end, with their lengths; places and new letters of these."""
    places, letters = np.divmod(np.arange(_LETTERS * len(tokens)), _LETTERS)
    changed = letters != tokens[places]
    places, letters = places[changed], letters[changed]
    rows = np.tile(tokens, (len(places) + 1, 1))
    rows[np.arange(len(places)) + 1, places] = letters
    return (rows.ravel(), np.full(len(rows), len(tokens))), places, letters


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of each class (n, K) against all others, from scores (n, K): finite where probabilities round to 1."""
    odds = np.empty_like(scores)
    for k in range(scores.shape[1]):
        others = np.delete(scores, k, axis=1)
        odds[:, k] = scores[:, k] - np.logaddexp.reduce(others, axis=1)
    return odds
