"""Properties of every variant: causality, streaming, padding, batches, gradients, files."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers import VARIANTS
from titans_seq.backbone import Stack, build_backbone, state_named_tensors
from titans_seq.backbone.bidirectional import Bidirectional
from titans_seq.schema import AttentionOptions, BackboneOptions, MemoryOptions, MixerOptions

DIM, LENGTH = 8, 23
WINDOW, SEGMENT, CHUNK = 5, 7, 4  # all shorter than a sequence, none a multiple of another


def options(variant: str, num_persistent: int = 2, num_heads: int = 2) -> BackboneOptions:
    return BackboneOptions(
        variant=variant,  # type: ignore[arg-type]
        dim=DIM,
        num_layers=2,
        dropout=0.0,
        num_persistent=num_persistent,
        kernel_size=WINDOW,
        segment_length=SEGMENT,
        memory=MemoryOptions(num_heads=num_heads, chunk_size=CHUNK, conv_width=3),
        mixer=MixerOptions(num_heads=num_heads, chunk_size=CHUNK, conv_width=3, state_size=6),
        attention=AttentionOptions(num_heads=num_heads, window=WINDOW),
    )


def build(variant: str, num_persistent: int = 2, num_heads: int = 2) -> Stack:
    """Build a model with weights so large that no effect is hidden by small numbers."""
    torch.manual_seed(0)
    model = build_backbone(options(variant, num_persistent, num_heads)).double()
    for name, parameter in model.named_parameters():
        if name.endswith("conv.weight"):
            nn.init.normal_(parameter, std=0.5)
        elif "persistent" in name:
            nn.init.normal_(parameter)
    return model


def tokens(batch: int = 3, length: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randn(
        batch, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True
    )


def pieces_of(
    model: Stack, x: Tensor, sizes: Sequence[int], mask: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run x in pieces, passing on the state; return all outputs and the last state's tensors."""
    outputs, state, first = [], None, 0
    for size in sizes:
        part = slice(first, first + size)
        y, state = model(x[:, part], state, mask=None if mask is None else mask[:, part])
        outputs.append(y)
        first += size
    assert first == x.shape[1]
    assert state is not None
    return torch.cat(outputs, dim=1), state_named_tensors(state)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def assert_same_states(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare states; positions may be an int in one and equal for all batch elements in the other."""
    assert found.keys() == expected.keys()
    for name, x in found.items():
        pair = torch.broadcast_tensors(x, expected[name]) if x.dtype == torch.int64 else (x, expected[name])
        torch.testing.assert_close(*pair, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_persistent", [0, 2])
@pytest.mark.parametrize("sizes", [[1] * LENGTH, [3, 4, 9, 7], [LENGTH - 1, 0, 1], [7, 7, 7, 2], [5, 18]])
def test_a_stream_in_pieces_equals_the_whole(variant: str, num_persistent: int, sizes: list[int]) -> None:
    model, x = build(variant, num_persistent), tokens()
    whole, whole_state = pieces_of(model, x, [LENGTH])
    pieced, pieced_state = pieces_of(model, x, sizes)
    assert_same(pieced, whole)
    assert_same_states(pieced_state, whole_state)
    weight = torch.randn_like(whole)
    for found, expected in zip(
        torch.autograd.grad((pieced * weight).sum(), [x, *model.parameters()]),
        torch.autograd.grad((whole * weight).sum(), [x, *model.parameters()]),
        strict=True,
    ):
        assert_same(found, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_output_depends_on_a_later_token(variant: str) -> None:
    model, x = build(variant), tokens(batch=1)
    before, _ = model(x)
    for t in range(LENGTH):
        changed = x.detach().clone()
        changed[:, t] += 1
        after, _ = model(changed)
        assert torch.equal(after[:, :t], before[:, :t]), t
        assert not torch.allclose(after[:, t], before[:, t]), t


@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_elements_are_independent(variant: str) -> None:
    model, x = build(variant), tokens()
    together, _ = model(x)
    for b in range(len(x)):
        assert_same(model(x[b : b + 1])[0], together[b : b + 1])


FINITE = ("transformer", "cnn")  # variants with a finite receptive field


def test_memory_reaches_beyond_the_window() -> None:
    """Two attention or convolution layers see 2 (WINDOW - 1) tokens back; with a memory the last sees the first."""
    for variant in VARIANTS:
        x = tokens(batch=1)
        y, _ = build(variant)(x)
        (gradient,) = torch.autograd.grad(y[:, -1].sum(), x)
        assert (gradient[0, 0].abs().max() > 1e-12) == (variant not in FINITE), variant


MASKS = {
    "right": [[True] * 23, [True] * 9 + [False] * 14, [True] * 14 + [False] * 9],
    "left": [[True] * 23, [False] * 14 + [True] * 9, [False] * 20 + [True] * 3],
    "holes": [[True, False, True] * 7 + [True] * 2, [False] * 5 + [True] * 12 + [False] * 6, [False] * 23],
}


@pytest.mark.parametrize("variant", [*VARIANTS, "bidirectional"])
@pytest.mark.parametrize("where", MASKS)
def test_padding_changes_nothing(variant: str, where: str) -> None:
    model = Bidirectional(build("mag"), build("mal")) if variant == "bidirectional" else build(variant)
    x, mask = tokens(), torch.tensor(MASKS[where])
    poisoned = torch.where(mask.unsqueeze(-1), x, torch.nan)
    padded, state = model(poisoned, mask=mask)
    assert (padded[~mask] == 0).all()
    weight = torch.randn_like(padded)
    found = torch.autograd.grad((padded * weight).sum(), [x, *model.parameters()])
    expected = [torch.zeros_like(p) for p in (x, *model.parameters())]
    for b, valid in enumerate(mask):
        alone, alone_state = model(x[b : b + 1, valid])
        assert_same(padded[b : b + 1, valid], alone)
        gradients = torch.autograd.grad(
            (alone * weight[b : b + 1, valid]).sum(), [x, *model.parameters()], materialize_grads=True
        )
        expected = [total + one for total, one in zip(expected, gradients, strict=True)]
        for name, one in state_named_tensors(alone_state).items():
            assert_same(state_named_tensors(state)[name].expand(3, *one.shape[1:])[b], one.expand(1, *one.shape[1:])[0])
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_padded_stream_in_pieces(variant: str) -> None:
    """Batch elements reach different positions in windows, chunks and segments, and continue from there."""
    model, x, mask = build(variant), tokens(), torch.tensor(MASKS["holes"])
    whole, whole_state = pieces_of(model, x, [LENGTH], mask)
    pieced, pieced_state = pieces_of(model, x, [4, 1, 11, 0, 7], mask)
    assert_same(pieced, whole)
    assert_same_states(pieced_state, whole_state)
    more = tokens(length=9, seed=2)
    _, state = model(x, mask=mask)
    y, _ = model(more, state)  # continue without a mask
    for b, valid in enumerate(mask):
        alone, _ = model(torch.cat([x[b : b + 1, valid], more[b : b + 1]], dim=1))
        assert_same(y[b : b + 1], alone[:, -9:])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("before", [0, SEGMENT, SEGMENT + 2])
def test_a_call_with_padding_only_changes_nothing(variant: str, before: int) -> None:
    model, x = build(variant), tokens()
    _, state = model(x[:, :before])
    y, after = model(torch.full_like(x[:, :3], torch.nan), state, mask=torch.zeros(3, 3, dtype=torch.bool))
    assert (y == 0).all()
    assert_same_states(state_named_tensors(after), state_named_tensors(state))
    assert_same(model(x[:, before:], after)[0], model(x)[0][:, before:])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_floating_types(variant: str, dtype: torch.dtype) -> None:
    """Modules in other precisions, also with a state from a model of another type."""
    model, x = build(variant), tokens().detach()
    expected, state = model(x)
    low = build(variant).to(dtype)
    y, _ = low(x.to(dtype))
    assert y.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 0.15
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    again, _ = low(x[:, :4].to(dtype), state)
    torch.testing.assert_close(again.double(), model(x[:, :4], state)[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("as_module", [False, True])
def test_half_precision_of_zeros_and_padding(variant: str, as_module: bool) -> None:
    """Padding, empty segment slots and a token of zeros: no division by zero, forward or backward."""
    model, x = build(variant).float(), tokens().float().detach()
    x[:, 2] = 0
    if as_module:
        model, x = model.half(), x.half()
    mask = torch.tensor(MASKS["holes"])
    with torch.autocast("cpu", dtype=torch.float16, enabled=not as_module):
        y, _ = model(x, mask=mask)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "change", [{"segment_length": SEGMENT - 2}, {"num_heads": 1}], ids=["segment_length", "num_heads"]
)
def test_a_segment_state_of_other_options_raises(change: dict[str, int]) -> None:
    x = tokens()
    num_heads = change.pop("num_heads", 2)
    other = build_backbone(replace(options("mac", num_heads=num_heads), **change)).double()  # type: ignore[arg-type]
    _, state = build("mac")(x[:, :3])
    with pytest.raises(ValueError, match="the state must hold a segment's keys and values of shape"):
        other(x, state)
    with pytest.raises(ValueError, match="position must be in a segment of 7 tokens; got 9"):
        build("mac")(x, [one._replace(position=9) for one in state])  # type: ignore[attr-defined]


@pytest.mark.parametrize("variant", VARIANTS)
def test_states_and_masks_that_do_not_fit_raise(variant: str) -> None:
    model, x = build(variant), tokens()
    _, state = model(x)
    for batch in (x[:1], torch.cat([x, x])):
        with pytest.raises(ValueError, match="must"):
            model(batch, state)
    with pytest.raises(ValueError, match="one entry for each of 2 blocks; got 1"):
        model(x, state[:1])
    for mask in (torch.ones(3, LENGTH), torch.ones(1, LENGTH, dtype=torch.bool)):
        with pytest.raises(ValueError, match="mask must be bool"):
            model(x, mask=mask)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_state_is_constant_in_size_and_survives_a_file(variant: str) -> None:
    model, x = build(variant), tokens()
    _, state = model(x[:, :3])
    named = state_named_tensors(state)
    copy = model.state_from_named_tensors(load(save(named)))
    found, expected = model(x[:, 3:], copy)[0], model(x[:, 3:], state)[0]
    assert torch.equal(found, expected)
    _, later = model(x[:, 3:], [one.detach() for one in state])
    shapes = {name: t.shape for name, t in state_named_tensors(later).items()}
    assert shapes == {name: t.shape for name, t in named.items()}
    name = next(iter(named))
    for wrong in ({**named, "7.x": named[name]}, {k: v for k, v in named.items() if k != name}):
        with pytest.raises(ValueError, match=r"unknown tensor .* in the state; expected|tensors"):
            model.state_from_named_tensors(wrong)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_heads", [1, 2])
def test_every_parameter_learns_and_is_saved(variant: str, num_heads: int) -> None:
    model, x = build(variant, num_heads=num_heads).float(), tokens().float()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(x)[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name
    optimizer.step()
    assert all((p != before[name]).any() for name, p in model.named_parameters())
    copy = build_backbone(options(variant, num_heads=num_heads))
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(x)[0], model(x)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_noise_cannot_be_predicted(variant: str) -> None:
    """Trained on i.i.d. random tokens, new ones at every step: a loss below their entropy would reveal leakage."""
    torch.manual_seed(0)
    symbols, small = 4, replace(options(variant), num_layers=1)
    model = nn.Sequential(nn.Embedding(symbols, DIM), build_backbone(small))
    head = nn.Linear(DIM, symbols)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for _ in range(120):
        sequence = torch.randint(symbols, (32, LENGTH + 1))
        logits = head(model(sequence[:, :-1])[0])
        loss = F.cross_entropy(logits.flatten(0, 1), sequence[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    entropy = torch.tensor(float(symbols)).log().item()
    # 40 batches of 736 tokens: the mean's standard error is below 0.002.
    assert sum(losses[-40:]) / 40 > entropy - 0.01


def test_bidirectional_outputs_see_the_whole_sequence_and_take_no_state() -> None:
    for model in (Bidirectional(build("lmm")), Bidirectional(build("mac"), build("transformer"))):
        x = tokens(batch=1)
        y, state = model(x)
        assert state == []
        (gradient,) = torch.autograd.grad(y[:, 0].sum(), x)
        assert (gradient[0, : 2 * WINDOW - 1].abs().amax(-1) > 1e-12).all()
        with pytest.raises(ValueError, match="takes no state"):
            model(x, build("lmm")(x)[1])
    shared = Bidirectional(build("lmm"))
    assert_same(shared(x.flip(1))[0], shared(x)[0].flip(1))
