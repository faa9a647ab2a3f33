"""The baselines of a pre-training run: guesses from how often bases follow, or lie between, the few beside them."""

import numpy as np
from numpy.typing import NDArray

from datamodules.dna.kmers import kmers
from datamodules.dna.pretraining.corpus import Corpus
from datamodules.dna.pretraining.streams import Streams
from datamodules.dna.sequences import Sequences
from titans_seq.experiment.base import Scores

_CONTEXTS = (0, 2, 4, 8)  # bases known beside the one that is guessed
_ENOUGH = 20_000_000  # bases of each split that are counted


def measure_contexts(corpus: Corpus, train: Streams, test: Streams, *, both_sides: bool) -> dict[str, Scores]:
    """Bits per base, perplexity and accuracy of counts of contexts in `train`, on `test`.

    Args:
        corpus: holds the bases.
        train, test: of each, the first 20 million bases count.
        both_sides: the context lies half before and half after the base, not all before it.

    Every context is taken to have been seen once with each base besides (add-one smoothing); bases of `test` with a
    whole context, without N, are asked for.
    """
    splits = [_read(corpus, part) for part in (train, test)]
    scores = {}
    for context in _CONTEXTS:
        after = context // 2 if both_sides else 0  # bases behind the one that is guessed
        counts = np.zeros((4**context, 4), dtype=np.int64)
        (seen, base), (asked, truth) = (_parted(kmers(part, context + 1)[0], after) for part in splits)
        if not len(truth):
            continue
        np.add.at(counts, (seen, base), 1)
        share = (counts[asked, truth] + 1) / (counts[asked].sum(axis=1) + 4)
        bits = float(-np.log2(share).mean())
        hits = float((counts[asked].argmax(axis=1) == truth).mean())
        where = f"{context // 2} bases on either side" if both_sides else f"{context} bases before"
        name = f"counts given {where}" if context else "frequencies of bases"
        scores[name] = {"test/bits_per_base": bits, "test/perplexity": 2**bits, "test/accuracy": hits}
    return scores


def _read(corpus: Corpus, part: Streams) -> Sequences:
    texts, lengths, left = [], [], _ENOUGH
    for record, start, end in zip(*(column.tolist() for column in part), strict=True):
        texts.append(corpus.read(record, start, min(end, start + left)))
        lengths.append(len(texts[-1]))
        left -= lengths[-1]
        if not left:
            break
    return Sequences(np.concatenate(texts), np.array(lengths, dtype=np.int64))


def _parted(codes: NDArray[np.uint64], after: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Context and base of every stretch of bases, (m,) each; the base has `after` others behind it."""
    low = codes & np.uint64(4**after - 1)
    base = (codes >> np.uint64(2 * after)) & np.uint64(3)
    context = ((codes >> np.uint64(2 * after + 2)) << np.uint64(2 * after)) | low
    return context.astype(np.int64), base.astype(np.int64)
