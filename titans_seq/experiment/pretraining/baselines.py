"""Baselines of a pre-training run: k-mer context models, which predict a base from a few neighbouring bases."""

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.kmers import kmers
from datamodules.dna.pretraining.corpus import Corpus
from datamodules.dna.pretraining.streams import Streams
from datamodules.dna.sequences import Sequences
from titans_seq.experiment.base import Scores

_CONTEXTS = (0, 2, 4, 8)  # context lengths in bases
_MAX_BASES = 20_000_000  # bases of each split that are read


def measure_contexts(corpus: Corpus, train: Streams, test: Streams, *, both_sides: bool) -> dict[str, Scores]:
    """Return bits per base, perplexity and accuracy on `test` of context models counted on `train`.

    Args:
        corpus: source of the bases.
        train, test: streams of the splits; the first 20 million bases of each are read.
        both_sides: half of the context lies before the base and half after it, instead of all before it.

    Counts use add-one smoothing. Only bases of `test` with a whole context without N are predicted.
    """
    splits = [_read(corpus, part) for part in (train, test)]
    scores = {}
    for context in _CONTEXTS:
        after = context // 2 if both_sides else 0  # bases of the context after the predicted one
        counts = np.zeros((4**context, 4), dtype=np.int64)
        (seen, base), (given, truth) = (_split_kmers(kmers(part, context + 1)[0], after) for part in splits)
        if not len(truth):
            continue
        np.add.at(counts, (seen, base), 1)
        probability = (counts[given, truth] + 1) / (counts[given].sum(axis=1) + 4)
        bits = float(-np.log2(probability).mean())
        accuracy = float((counts[given].argmax(axis=1) == truth).mean())
        where = f"{context // 2} bases on either side" if both_sides else f"{context} bases before"
        name = f"counts given {where}" if context else "frequencies of bases"
        scores[name] = {"test/bits_per_base": bits, "test/perplexity": 2**bits, "test/accuracy": accuracy}
    return scores


def _read(corpus: Corpus, part: Streams) -> Sequences:
    texts, lengths, left = [], [], _MAX_BASES
    for record, start, end in zip(*(column.tolist() for column in part), strict=True):
        texts.append(corpus.read(record, start, min(end, start + left)))
        lengths.append(len(texts[-1]))
        left -= lengths[-1]
        if not left:
            break
    return Sequences(np.concatenate(texts), np.array(lengths, dtype=np.int64))


def _split_kmers(codes: NDArray[np.uint64], after: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split k-mer codes (m,) into codes of context and predicted base, (m,) each; `after` bases follow that base."""
    low = codes & np.uint64(4**after - 1)
    base = (codes >> np.uint64(2 * after)) & np.uint64(3)
    context = ((codes >> np.uint64(2 * after + 2)) << np.uint64(2 * after)) | low
    return context.astype(np.int64), base.astype(np.int64)
