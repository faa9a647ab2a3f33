"""Masked tokens and packed sequences against the reference, and against each sequence on its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.ops.test_chunked import BATCH, assert_same, flatten, loss_of, make_inputs
from titans_seq.ops import MemoryState, titans_memory

RULES = [{"chunk_size": 5}, {"chunk_size": 5, "forget_to": "initial"}, {"chunk_size": 4, "gradient": "online"}]


def flags(length: int, share: float, seed: int) -> Tensor:
    return torch.rand(BATCH, length, generator=torch.Generator().manual_seed(seed)) < share


def run(tokens: list[Tensor], weights: list[Tensor], state: MemoryState | None, **options: Any) -> list[Tensor]:
    y, after, stats = titans_memory(*tokens, weights, state, return_stats=True, **options)
    results = flatten(y, after)
    gradients = torch.autograd.grad(loss_of(results), [*tokens, *weights], allow_unused=True)
    found = [torch.zeros(()) if g is None else g for g in gradients]
    return [*results, *found, *stats, torch.as_tensor(after.position).expand(BATCH).double()]


@pytest.mark.parametrize(("depth", "options"), [*((1, rule) for rule in RULES), *((2, rule) for rule in RULES[:2])])
@pytest.mark.parametrize(("kept", "resets"), [(0.7, 0.0), (1.0, 0.2), (0.6, 0.2), (0.0, 0.5), (0.1, 1.0)])
def test_masks_and_resets_equal_the_token_loop(options: dict[str, Any], depth: int, kept: float, resets: float) -> None:
    for length in (1, 5, 23):
        tokens, weights = make_inputs(length, depth)
        masks = {"mask": flags(length, kept, 1), "reset": flags(length, resets, 2)}
        # From the start, from the middle of a chunk, and from different positions in it.
        past, _ = make_inputs(7, depth, seed=3)
        _, even = titans_memory(*past, weights, **options)
        _, uneven = titans_memory(*past, weights, mask=flags(7, 0.6, 4), **options)
        for state in (None, even.detach(), uneven.detach()):
            found, expected = (
                run(tokens, weights, state, backend=backend, **masks, **options) for backend in ("chunked", "reference")
            )
            assert_same(found, expected)


@pytest.mark.parametrize("options", RULES)
def test_packed_sequences_do_not_leak_into_each_other(options: dict[str, Any]) -> None:
    lengths = [3, 9, 1, 6]
    tokens, weights = make_inputs(sum(lengths))
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    reset = torch.zeros(BATCH, sum(lengths), dtype=torch.bool)
    reset[:, starts] = True
    packed, state = titans_memory(*tokens, weights, reset=reset, **options)
    for first, length in zip(starts, lengths, strict=True):
        alone, after = titans_memory(*(x[:, first : first + length] for x in tokens), weights, **options)
        assert_same([packed[:, first : first + length]], [alone])
    assert_same(flatten(packed, state)[1:], flatten(alone, after)[1:])


@pytest.mark.parametrize("options", RULES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(options: dict[str, Any], side: str) -> None:
    tokens, weights = make_inputs(11)
    y, state = titans_memory(*tokens, weights, **options)
    padding = [torch.full_like(x[:, :6], torch.nan) for x in tokens]
    padded = [torch.cat([p, x] if side == "left" else [x, p], dim=1) for p, x in zip(padding, tokens, strict=True)]
    real = slice(6, None) if side == "left" else slice(None, 11)
    mask = torch.zeros(BATCH, 17, dtype=torch.bool)
    mask[:, real] = True
    y_padded, state_padded = titans_memory(*padded, weights, mask=mask, **options)
    assert_same(flatten(y_padded[:, real], state_padded), flatten(y, state))
    assert not y_padded[~mask].any()


@pytest.mark.parametrize("options", RULES)
def test_masked_tokens_leave_the_state_bit_identical(options: dict[str, Any]) -> None:
    tokens, weights = make_inputs(8)
    _, state = titans_memory(*tokens, weights, **options)
    nothing = torch.zeros(BATCH, 13, dtype=torch.bool)
    _, after = titans_memory(*make_inputs(13, seed=5)[0], weights, state, mask=nothing, **options)
    for before, now in zip(flatten(tokens[0], state)[1:], flatten(tokens[0], after)[1:], strict=True):
        assert torch.equal(before, now)
    assert (torch.as_tensor(after.position) == torch.as_tensor(state.position)).all()


def test_masks_and_resets_continue_exactly_at_every_split() -> None:
    tokens, weights = make_inputs(13, depth=2)
    masks = {"mask": flags(13, 0.7, 1), "reset": flags(13, 0.15, 2)}
    whole = flatten(*titans_memory(*tokens, weights, chunk_size=4, **masks))
    for cut in range(14):
        first, rest = ({k: m[:, part] for k, m in masks.items()} for part in (slice(cut), slice(cut, None)))
        y1, state = titans_memory(*(x[:, :cut] for x in tokens), weights, chunk_size=4, **first)
        y2, state = titans_memory(*(x[:, cut:] for x in tokens), weights, state, chunk_size=4, **rest)
        assert_same(flatten(torch.cat([y1, y2], dim=1), state), whole)


@pytest.mark.parametrize("uneven", [False, True])
def test_a_state_goes_through_a_file_and_continues_exactly(tmp_path: Path, uneven: bool) -> None:
    tokens, weights = make_inputs(7, depth=2)
    mask = flags(7, 0.6, 4) if uneven else None
    _, state = titans_memory(*tokens, weights, chunk_size=5, mask=mask)
    save_file(state.named_tensors(), tmp_path / "state.safetensors")
    loaded = MemoryState.from_named_tensors(load_file(tmp_path / "state.safetensors"))
    more, _ = make_inputs(9, depth=2, seed=6)
    found, expected = (flatten(*titans_memory(*more, weights, s, chunk_size=5)) for s in (loaded, state))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(ValueError, match=r"expected the tensors of a MemoryState; got position, weights\.0"):
        MemoryState.from_named_tensors({"position": torch.zeros(()), "weights.0": weights[0]})


def test_flags_of_another_shape_or_type_raise() -> None:
    tokens, weights = make_inputs(3)
    with pytest.raises(ValueError, match=r"mask must be bool, \(B, T\) = \(2, 3\); got torch.float32, \(2, 3\)"):
        titans_memory(*tokens, weights, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"reset must be bool, .* got torch.bool, \(2, 4\)"):
        titans_memory(*tokens, weights, reset=torch.ones(2, 4, dtype=torch.bool))
