"""Tokenization of bases and arrays of many sequences, against a letter-by-letter reference."""

import numpy as np
import pytest

from datamodules.dna.kmers import kmers
from datamodules.dna.sequences import Sequences, Side
from datamodules.dna.tokenizer import complement, decode, encode, reverse_complement
from tests.datamodules.dna.dna_reference import (
    OPPOSITE,
    PADDING,
    TOKEN,
    place,
    random_dna,
    refused,
    slow_encode,
    slow_reverse_complement,
)
from titans_seq.batch import BASES, COMPLEMENT, MASK_TOKEN, NUM_TOKENS, PAD_TOKEN

LENGTHS = [1, 2, 251, 7, 1, 40, 513, 3]


def read(texts: list[str]) -> Sequences:
    return Sequences.read(texts, place)


def test_token_numbers_and_complements() -> None:
    assert {base: BASES.index(base) for base in BASES} == TOKEN
    assert len({*TOKEN.values(), PAD_TOKEN, MASK_TOKEN}) == NUM_TOKENS == len(COMPLEMENT) == 7
    assert (PAD_TOKEN, MASK_TOKEN) == (PADDING, 6)
    assert all(BASES[COMPLEMENT[TOKEN[base]]] == opposite for base, opposite in OPPOSITE.items())
    assert (COMPLEMENT[PAD_TOKEN], COMPLEMENT[MASK_TOKEN]) == (PAD_TOKEN, MASK_TOKEN)


@pytest.mark.parametrize("letters", ["ACGT", "ACGTN", "acgtnACGTN"])
def test_tokens_equal_the_slow_reference(letters: str) -> None:
    texts = random_dna(LENGTHS, letters=letters)
    encoded = encode(texts, place)
    assert encoded.tokens.tolist() == [token for text in texts for token in slow_encode(text)]
    assert encoded.lengths.tolist() == LENGTHS
    assert encoded.ambiguous == 0


def test_encoding_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_dna([3, 50, 1, 8, 8, 8, 200, 2, 9], letters="ACGTN")
    whole = encode(texts, place).tokens
    monkeypatch.setattr("datamodules.dna.tokenizer._BLOCK_TEXTS", 2)
    monkeypatch.setattr("datamodules.dna.tokenizer._BLOCK_LETTERS", 7)
    assert encode(texts, place).tokens.tolist() == whole.tolist() == [t for text in texts for t in slow_encode(text)]


def test_other_iupac_letters_become_n_and_are_counted() -> None:
    encoded = encode(["ARYSWKMBDHVN", "ryswkmbdhvCC"], place)
    assert decode(encoded.tokens) == "A" + "N" * 11 + "N" * 10 + "CC"
    assert encoded.ambiguous == 20


@pytest.mark.parametrize(
    ("texts", "pattern"),
    [
        (["ACGT", "ACXGX", "X"], "row 1: 'X' at base 3 is not a DNA letter.*; 3 such letters in 2 sequences"),
        (["ACGT", "AC GT"], "row 1: ' ' at base 3"),
        (["A-C"], "row 0: '-' at base 2"),
        (["ACG\n"], r"row 0: '\\n' at base 4"),
        (["AC", "ACé"], "row 1: 'é' at base 3"),
        (["ACG", "A中C"], "row 1: '中' at base 2"),
        (["ACG", "ACU"], "row 1: 'U' at base 3.*RNA.*data.rna=true"),
        (["ACG", "", "", "C"], "row 1: no sequence; 2 rows"),
    ],
)
def test_non_dna_letters_are_an_error_with_their_position(texts: list[str], pattern: str) -> None:
    import re

    assert re.match(pattern, refused(lambda: encode(texts, place)))


def test_u_is_read_as_t_with_rna() -> None:
    assert decode(encode(["AUGu"], place, rna=True).tokens) == "ATGT"


def test_empty_input() -> None:
    assert len(encode([], place).tokens) == 0
    assert len(read([])) == 0


def test_decoding_inverts_encoding_and_skips_padding() -> None:
    text = random_dna([500], letters="ACGTN")[0]
    assert decode(np.array(slow_encode(text), dtype=np.uint8)) == text
    assert decode(np.array([PADDING, 0, PADDING, 3, PADDING], dtype=np.uint8)) == "AT"
    with pytest.raises(ValueError, match=r"below 5 or 5 \(padding\); got 6"):
        decode(np.array([MASK_TOKEN], dtype=np.uint8))


def test_reverse_complement_equals_the_slow_reference_and_is_an_involution() -> None:
    text = random_dna([333], letters="ACGTN")[0]
    tokens = np.array(slow_encode(text), dtype=np.uint8)
    assert decode(reverse_complement(tokens)) == slow_reverse_complement(text)
    assert (reverse_complement(reverse_complement(tokens)) == tokens).all()
    assert decode(complement(tokens)) == slow_reverse_complement(text)[::-1]


def test_sequences_return_their_texts_and_rows() -> None:
    texts = random_dna(LENGTHS)
    sequences = read(texts)
    assert sequences.texts() == texts
    assert [decode(sequences[row]) for row in range(len(texts))] == texts
    assert sequences.rows().tolist() == [row for row, text in enumerate(texts) for _ in text]
    index = np.array([6, 0, 0, 3])
    assert sequences.take(index).texts() == [texts[i] for i in index]
    assert read([]).take(np.array([], dtype=np.int64)).texts() == []


def test_reverse_complement_of_all_sequences() -> None:
    texts = random_dna(LENGTHS, letters="ACGTN")
    assert read(texts).reverse_complement().texts()[::-1] == [slow_reverse_complement(text) for text in texts]


def test_blockwise_operations_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_dna(LENGTHS, letters="ACGTN")
    index = np.random.default_rng(0).permutation(len(texts))
    for size in (1, 30, 1 << 22):
        monkeypatch.setattr("datamodules.dna.sequences._RUN", size)
        assert read(texts).take(index).texts() == [texts[row] for row in index]
        assert read(texts).take(index, max_length=7).texts() == [texts[row][:7] for row in index]
        codes, rows = kmers(read(texts), 3)
        assert len(codes) == sum("N" not in text[i : i + 3] for text in texts for i in range(len(text) - 2))
        assert (np.diff(rows) >= 0).all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [None, 1, 7, 250, 10_000])
def test_padded_batches_equal_the_slow_reference(side: Side, max_length: int | None) -> None:
    texts = random_dna(LENGTHS, letters="ACGTN")
    index = np.array([5, 1, 6, 3, 6])
    flip = np.array([True, False, True, False, False])
    tokens, mask = read(texts).padded(index, max_length=max_length, side=side, reverse=flip)

    expected_texts = [texts[i][:max_length] for i in index]
    expected_texts = [
        slow_reverse_complement(text) if f else text for text, f in zip(expected_texts, flip, strict=True)
    ]
    width = max(map(len, expected_texts))
    for row, text in enumerate(expected_texts):
        padding = [PADDING] * (width - len(text))
        expected = padding + slow_encode(text) if side == "left" else slow_encode(text) + padding
        assert tokens[row].tolist() == expected
        assert mask[row].tolist() == [token != PADDING for token in expected]


def test_batch_is_a_writable_copy() -> None:
    sequences = read(["ACGT", "AC"])
    sequences.padded(np.array([0, 1]))[0][:] = 9
    assert sequences.texts() == ["ACGT", "AC"]
