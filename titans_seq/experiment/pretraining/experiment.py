"""The experiment of a DNA pre-training run."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
from lightning.pytorch import Trainer

from datamodules.common.splitting import SPLITS, Split
from datamodules.dna.datasets.catalogue import open_corpus, open_held_out
from datamodules.dna.datasets.simulated_genome import BEST_BITS
from datamodules.dna.pretraining.corpus import Corpus, joined
from datamodules.dna.pretraining.datamodule import PretrainingDataModule, split_corpus
from datamodules.dna.pretraining.streams import Streams
from datamodules.dna.sequences import joined_sequences
from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.base import Description, Experiment, Scores
from titans_seq.experiment.pretraining.baselines import measure_contexts
from titans_seq.experiment.pretraining.plots import plot_bits_per_base
from titans_seq.experiment.run.trainer import train_batches
from titans_seq.nn.stem import BaseStem
from titans_seq.schema import Config, PretrainingConfig
from titans_seq.tasks import PretrainingTask

_NO_PREDICTION = (
    "predict: is not supported for task.name=pretraining; fit a classifier with model.pretrained, or evaluate with "
    "`titans-seq test`"
)


class PretrainingExperiment(Experiment[PretrainingTask]):
    """Pre-training on unlabelled DNA, segment by segment."""

    config: PretrainingConfig
    config_class = PretrainingConfig
    plot_name = "bits"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        config = self.config
        self.columns = {
            "test/bits_per_base": "bits/base",
            "test/perplexity": "perplexity",
            "test/accuracy": "accuracy",
        }
        self.simulated = config.data.name == "simulated" and not config.data.also

    @cached_property
    def data(self) -> PretrainingDataModule:
        """The corpus, read or mapped, checked and split."""
        options, model = self.config.data, self.config.model
        left, right = 0, self._context_only
        if self.config.task.objective == "next":
            left = -(-self._stem.before // model.stride) * model.stride
        data = PretrainingDataModule(
            self._corpus,
            self._split,
            segment=options.segment,
            stream_length=options.stream_length,
            batch_size=options.batch_size,
            left=left,
            right=right,
            multiple=model.stride,
            both_strands=options.both_strands,
            seed=self.config.seed,
            epoch_batches=train_batches(self.config.trainer),
        )
        data.setup()
        return data

    @cached_property
    def _stem(self) -> BaseStem:
        model = self.config.model
        return BaseStem(1, 1, model.stem_width, model.stride, model.stem_pool)

    @property
    def _context_only(self) -> int:
        """Number of bases at a stream's start that carry no loss: the first prediction already sees them."""
        return self._stem.after + 1 if self.config.task.objective == "next" else 0

    def _corpus(self) -> Corpus:
        options = self.config.data
        columns: dict[str, Any] = {"sequence": options.sequence, "rna": options.rna}
        corpus = joined([open_corpus(name, options.root, **columns) for name in (options.name, *options.also)])
        if not options.exclude:
            return corpus
        held_out = [open_held_out(name, options.root, **columns) for name in options.exclude]
        return corpus.without(joined_sequences(held_out))

    def _split(self, corpus: Corpus) -> dict[Split, Streams]:
        options = self.config.data
        return split_corpus(
            corpus,
            unit=options.unit,
            fraction=options.fraction,
            validation_records=options.validation_records,
            test_records=options.test_records,
            seed=options.holdout_seed,
            context_only=self._context_only,
        )

    def new_task(self) -> tuple[PretrainingTask, str]:
        """The task, randomly initialised."""
        return PretrainingTask(to_container(self.config)), ""

    def restored_task(self, hyperparameters: Mapping[str, Any]) -> PretrainingTask:
        """The checkpoint's task, before its weights are loaded."""
        return PretrainingTask(to_container(self.config))

    def check_data(self, task: PretrainingTask, source: str) -> None:
        """Accept any DNA."""

    def describe(self) -> Description:
        """The variant, the corpus, and the sizes of its splits."""
        simulated = " (simulated DNA, made by this program)" if self.simulated else ""
        counts = ", ".join(f"{bases:,} {split}" for split, bases in self._bases().items())
        part = ", the first batches only" if self.config.trainer.limit_batches else ""
        on = "simulated DNA" if self.simulated else self.data.corpus.name
        return Description(
            self.config.model.variant.upper(),
            f"{self.data.corpus.name}{simulated}: {len(self.data.corpus.names):,} records, {counts} bases",
            f"Test scores on {on}: the {self.config.task.objective} base{part}",
        )

    def notes(self) -> tuple[str, ...]:
        """Messages from reading the corpus."""
        return self.data.corpus.notes

    def _bases(self) -> dict[str, int]:
        return {split: self.data.bases(split) for split in SPLITS}

    def fingerprint(self) -> dict[str, Any]:
        """Hashes of the corpus and of its splits."""
        return self.data.fingerprint()

    def metadata(self) -> dict[str, Any]:
        """Entries of results.json about the corpus."""
        return {
            "data": self.data.corpus.name,
            "simulated": self.simulated,
            **({"best_possible_bits_per_base": BEST_BITS} if self.simulated else {}),
            "objective": self.config.task.objective,
            "records": len(self.data.corpus.names),
            "bases": self._bases(),
            "notes": list(self.notes()),
        }

    def baselines(self) -> dict[str, Scores]:
        """Test scores of k-mer context models, on the whole test split."""
        return self._contexts

    @cached_property  # used by the table and the plot
    def _contexts(self) -> dict[str, Scores]:
        masked = self.config.task.objective == "masked"
        splits = self.data.splits
        return measure_contexts(self.data.corpus, splits["train"], splits["test"], both_sides=masked)

    def draw(self, task: PretrainingTask, path: Path) -> None:
        """Plot test bits per base against the bases of the stream read before: the gain from carried memory."""
        segments = sorted(task.bits_by_segment.items())
        plot_bits_per_base(
            path,
            bases_before=[index * self.config.data.segment for index, _ in segments],
            bits=[total / bases for _, (total, bases) in segments],
            levels={name: scores["test/bits_per_base"] for name, scores in self.baselines().items()},
            title=self.describe().title,
        )

    def predict_test(self, task: PretrainingTask, trainer: Trainer) -> pl.DataFrame:
        """Raise InputError: pre-training has no predictions of its own."""
        raise InputError(_NO_PREDICTION)

    def predict_file(self, task: PretrainingTask, trainer: Trainer, path: Path) -> pl.DataFrame:
        """Raise InputError: pre-training has no predictions of its own."""
        raise InputError(_NO_PREDICTION)
