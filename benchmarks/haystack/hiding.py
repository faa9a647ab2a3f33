"""The haystacks: bytes with something hidden in them, and the questions at their end."""

import re
import sysconfig
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

MARK, ASK, KEYS, VALUES, NOISE = 254, 255, (0, 32), (64, 96), (128, 254)  # bytes, ranges of bytes
MORE_KEYS = (0, 64)  # the keys of a haystack of up to 64 pairs
PAIR = 3  # bytes of a needle [MARK] key value, and of a question [ASK] key value
NUMBERS_OF_PAIRS = (1, 2, 4, 8, 16, 32, 64)

FILLER = b"The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
PASSKEY = b"The pass key is %s. Remember it. %s is the pass key. "
ASK_PASSKEY = b"What is the pass key? The pass key is %s"
NUMBER, WORD = b"\nThe number is %s.\n", b"\nThe secret is %s.\n"
LETTERS = 5  # of a passkey, a number and a word


class Sample(NamedTuple):
    """Haystacks that end with the questions, whose answers are to be predicted byte by byte."""

    tokens: Tensor  # (B, T)
    answers: Tensor  # (B, questions, bytes of an answer)
    at: Tensor  # (questions, bytes of an answer): the positions, from the end, after which a byte is predicted
    asking: int  # bytes at the end that are questions and answers


class Haystack(NamedTuple):
    """A kind of haystack."""

    sample: Callable[[int, int, torch.Generator, bool], Sample]  # batch, length, generator; True: for training
    noise: Callable[[int, int, torch.Generator, bool], Tensor]  # the same arguments: a haystack that hides nothing
    shortest: int  # bytes of the first training sequences
    chance: float  # of a right answer


def hide_pairs(batch: int, length: int, generator: torch.Generator, needles: int, keys_in: tuple[int, int]) -> Sample:
    """Hide `needles` pairs [MARK] key value in random bytes; all keys are asked at the end, in random order."""
    haystack = length - needles * PAIR
    tokens = random_bytes(batch, length, generator)
    keys = keys_in[0] + torch.rand(batch, keys_in[1] - keys_in[0], generator=generator).argsort(1)[:, :needles]
    values = torch.randint(*VALUES, (batch, needles), generator=generator)
    pairs = torch.stack([torch.full_like(keys, MARK), keys, values], dim=2)
    starts = _starts(batch, haystack, torch.full((needles,), PAIR), generator)
    tokens.scatter_(1, (starts[..., None] + torch.arange(PAIR)).flatten(1), pairs.flatten(1))
    order = torch.rand(batch, needles, generator=generator).argsort(1)
    asked = pairs.gather(1, order[..., None].expand(-1, -1, PAIR))
    asked[..., 0] = ASK
    tokens[:, haystack:] = asked.flatten(1)
    at = torch.arange(-needles * PAIR, 0, PAIR)[:, None] + 1
    return Sample(tokens, asked[..., 2:], at, needles * PAIR)


def hide_four(batch: int, length: int, generator: torch.Generator, training: bool) -> Sample:
    """Hide four pairs with 32 keys."""
    return hide_pairs(batch, length, generator, 4, KEYS)


def hide_some(batch: int, length: int, generator: torch.Generator, training: bool) -> Sample:
    """Hide 1 to 64 pairs with 64 keys for training, as many as take up at most half of the length; 64 in a test."""
    fitting = [n for n in NUMBERS_OF_PAIRS if 4 * PAIR * n <= length]
    choice = int(torch.randint(len(fitting), (1,), generator=generator)) if training else -1
    return hide_pairs(batch, length, generator, fitting[choice], MORE_KEYS)


def random_bytes(batch: int, length: int, generator: torch.Generator, training: bool = True) -> Tensor:
    """Draw noise (B, T)."""
    return torch.randint(*NOISE, (batch, length), generator=generator)


def hide_passkey(batch: int, length: int, generator: torch.Generator, training: bool) -> Sample:
    """Hide a number of five digits in a repeated filler (Mohtashami and Jaggi, arXiv 2305.16300)."""
    numbers = [_number(generator) for _ in range(batch)]
    needles = [[PASSKEY % (n, n)] for n in numbers]
    return _hide_text(filler(batch, length, generator), needles, [[ASK_PASSKEY % n] for n in numbers], generator)


def filler(batch: int, length: int, generator: torch.Generator, training: bool = True) -> Tensor:
    """Repeat the filler (B, T), from a random byte of it on."""
    text = torch.frombuffer(bytearray(FILLER), dtype=torch.uint8).long()
    starts = torch.randint(len(text), (batch, 1), generator=generator)
    return text[(starts + torch.arange(length)) % len(text)]


def hide_number_and_word(batch: int, length: int, generator: torch.Generator, training: bool) -> Sample:
    """Hide a number of five digits and a word of five letters in sources of Python's standard library.

    Test haystacks, and their words, are from files that no training sequence is from.
    """
    words = _sources(training)[1]
    needles = []
    for _ in range(batch):
        word = words[int(torch.randint(len(words), (1,), generator=generator))]
        texts = [NUMBER % _number(generator), WORD % word]
        needles.append(texts[:: 1 - 2 * int(torch.randint(2, (1,), generator=generator))])
    asked = []
    for pair in needles:
        first = int(torch.randint(2, (1,), generator=generator))
        asked.append([text.removesuffix(b".\n") for text in (pair[first], pair[1 - first])])
    return _hide_text(source_code(batch, length, generator, training), needles, asked, generator)


def source_code(batch: int, length: int, generator: torch.Generator, training: bool) -> Tensor:
    """Cut stretches (B, T) of the sources, each from a random byte on; beyond the last file the first one follows."""
    text = _sources(training)[0]
    starts = torch.randint(len(text), (batch, 1), generator=generator)
    return text[(starts + torch.arange(length)) % len(text)].long()


@cache
def _sources(training: bool) -> tuple[Tensor, list[bytes]]:
    """Return the text of the training or test files of the standard library, and its words of five letters."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts)
    chosen = [path for path in files if (zlib.crc32(path.relative_to(root).as_posix().encode()) % 4 != 0) == training]
    text = b"\n".join(path.read_bytes() for path in chosen)
    words = sorted(set(re.findall(rb"\b[a-z]{%d}\b" % LETTERS, text)))
    return torch.frombuffer(bytearray(text), dtype=torch.uint8), words


def _number(generator: torch.Generator) -> bytes:
    digits: list[int] = torch.randint(10, (LETTERS,), generator=generator).tolist()
    return bytes(ord("0") + digit for digit in digits)


def _hide_text(
    tokens: Tensor, needles: list[list[bytes]], asked: list[list[bytes]], generator: torch.Generator
) -> Sample:
    """Write needles over tokens (B, T) at random places and questions at their end; an answer is its last bytes."""
    tail = _as_tokens([b"".join(texts) for texts in asked])
    sizes = [len(text) for text in asked[0]]
    haystack = tokens.shape[1] - tail.shape[1]
    tokens[:, haystack:] = tail
    lengths = torch.tensor([len(text) for text in needles[0]])
    starts = _starts(len(tokens), haystack, lengths, generator)
    for index, size in enumerate(lengths.tolist()):
        texts = _as_tokens([row[index] for row in needles])
        tokens.scatter_(1, starts[:, index, None] + torch.arange(size), texts)
    ends = torch.tensor(sizes).cumsum(0) - sum(sizes)
    answers_at = ends[:, None] + torch.arange(-LETTERS, 0)
    answers = tail[:, answers_at + tail.shape[1]]
    return Sample(tokens, answers, answers_at - 1, tail.shape[1])


def _as_tokens(texts: list[bytes]) -> Tensor:
    return torch.tensor([list(text) for text in texts])


def _starts(batch: int, length: int, sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Draw where needles of these sizes start (B, needles), so that they do not overlap, in a stretch of `length`."""
    room = length - int(sizes.sum()) + 1
    starts = (torch.rand(batch, len(sizes), generator=generator) * room).long().sort(1).values
    return starts + sizes.cumsum(0) - sizes


HAYSTACKS = {
    "bytes": Haystack(hide_four, random_bytes, 32, 1 / (VALUES[1] - VALUES[0])),
    "pairs": Haystack(hide_some, random_bytes, 32, 1 / (VALUES[1] - VALUES[0])),
    "passkey": Haystack(hide_passkey, filler, 128, 10.0**-LETTERS),
    "text": Haystack(hide_number_and_word, source_code, 128, 10.0**-LETTERS),
}
