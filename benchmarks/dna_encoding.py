"""DNA encoding and loading speed: bases per second of the encoder, batches per second of the bucketed loader.

Encoding: one hundred thousand sequences of 251 bases, in processor time. Peers: a Python dict looked up letter by
letter (what the character tokenizers of the published DNA models do), `str.translate`, and numpy's own indexing with
the same table, a sequence at a time and over all at once. All give the same tokens; ours also raises an error at
non-base letters and counts IUPAC codes, the peers do not check.

Loading: 20,000 sequences of 100 to 573 bases, half as reverse complements, batches of 128. The peer is the common
design of published repositories: a Dataset that encodes one string per call, DataLoader, pad_sequence.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from record import record
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from datamodules.dna.classification.bucketing import SequenceLoader
from datamodules.dna.classification.labelled import Examples
from datamodules.dna.sequences import Sequences
from datamodules.dna.tokenizer import encode

BASES = "ACGTN"
TOKENS = {letter: token for token, letter in enumerate(BASES)}
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def by_dict(texts: list[str]) -> list[list[int]]:
    return [[TOKENS[letter] for letter in text] for text in texts]


def by_str_translate(texts: list[str]) -> list[np.ndarray]:
    table = str.maketrans(BASES, "\x00\x01\x02\x03\x04")
    return [np.frombuffer(text.translate(table).encode(), dtype=np.uint8) for text in texts]


def lookup() -> np.ndarray:
    table = np.zeros(256, dtype=np.uint8)
    table[[ord(letter) for letter in BASES]] = range(len(BASES))
    return table


def by_numpy_each(texts: list[str]) -> list[np.ndarray]:
    table = lookup()
    return [table[np.frombuffer(text.encode(), dtype=np.uint8)] for text in texts]


def by_numpy_joined(texts: list[str]) -> np.ndarray:
    return lookup()[np.frombuffer("".join(texts).encode(), dtype=np.uint8)]


def ours(texts: list[str]) -> np.ndarray:
    return encode(texts, str).tokens


class PerSample(Dataset):
    """Dataset with one encoded sequence per item."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> torch.Tensor:
        text = self.texts[row]
        if torch.rand(()) < 0.5:
            text = text[::-1].translate(COMPLEMENT)
        return torch.tensor([TOKENS[letter] for letter in text])


def collate(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = pad_sequence(rows, batch_first=True, padding_value=5)
    return tokens, tokens != 5


def median_seconds(call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    seconds = []
    for _ in range(repeats):
        start = clock()
        call()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def encoding(rng: np.random.Generator) -> dict[str, float]:
    letters = rng.choice(np.frombuffer(b"ACGT", dtype=np.uint8), (100_000, 251))
    texts = [row.tobytes().decode() for row in letters]
    reference = np.array([token for row in by_dict(texts[:100]) for token in row])
    figures = {}
    for peer in (ours, by_dict, by_str_translate, by_numpy_each, by_numpy_joined):
        first = peer(texts[:100])
        flat = first if isinstance(first, np.ndarray) else np.concatenate([np.asarray(row) for row in first])
        assert (flat == reference).all(), peer.__name__
        repeats = 1 if peer is by_dict else 7
        seconds = median_seconds(lambda peer=peer: peer(texts), repeats, time.process_time)  # type: ignore[misc]
        figures[peer.__name__] = round(1e3 * seconds / (letters.size / 1e6), 3)
        print(f"{peer.__name__}: {figures[peer.__name__]} ms per million bases")
    return figures


def loading(rng: np.random.Generator) -> dict[str, float]:
    lengths = rng.integers(100, 574, 20_000)
    texts = [rng.choice(np.frombuffer(b"ACGT", dtype=np.uint8), length).tobytes().decode() for length in lengths]
    rows = Examples(Sequences.read(texts, str), np.zeros(len(texts), dtype=np.int64))
    loader = SequenceLoader(rows, 128, shuffle=True, both_strands=True)
    peer = DataLoader(PerSample(texts), batch_size=128, shuffle=True, collate_fn=collate)
    figures: dict[str, float] = {}
    for name, each, repeats in (("ours", loader, 7), ("peer", peer, 3)):
        seconds = median_seconds(lambda each=each: [None for _ in each], repeats)  # type: ignore[misc]
        cells = sum((batch.tokens if name == "ours" else batch[0]).numel() for batch in each)
        figures[f"{name}_batches_per_second"] = round(len(each) / seconds)
        figures[f"{name}_padding_share"] = round(float(1 - lengths.sum() / cells), 4)
        print(f"{name}: {figures[f'{name}_batches_per_second']} batches/s")
    return figures


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    record("dna_encoding", {"ms_per_million_bases": encoding(rng), "loading": loading(rng)})


if __name__ == "__main__":
    main()
