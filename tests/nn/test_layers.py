"""Layers and backbone: exact streaming, causality, and a gradient for every parameter."""

import pytest
import torch
from torch.nn import functional as F

from titans_seq.backbone import Stack, build_backbone
from titans_seq.nn import CausalConv, NeuralMemory, ReversibleInstanceNorm
from titans_seq.nn.embedding import PatchEmbedding
from titans_seq.schema import BackboneOptions, MemoryOptions


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small_lmm(num_heads: int = 2, **memory: object) -> Stack:
    options = MemoryOptions(num_heads=num_heads, chunk_size=4, **memory)  # type: ignore[arg-type]
    return build_backbone(BackboneOptions(dim=16, dropout=0.0, memory=options)).double()


@pytest.mark.parametrize("length", [1, 2, 3, 11, 300])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_convolution_equals_torch_and_its_gradients(length: int, width: int) -> None:
    conv = CausalConv(6, width).double()
    torch.nn.init.normal_(conv.weight)
    x = torch.randn(3, length, 6, dtype=torch.float64, requires_grad=True)
    before = torch.randn(3, width - 1, 6, dtype=torch.float64, requires_grad=True)
    y, after = conv(x, before)
    together = torch.cat([before, x], dim=1)
    kernel = conv.weight.T.unsqueeze(1)  # (dim, 1, width)
    expected = F.conv1d(together.transpose(1, 2), kernel, groups=6).transpose(1, 2)
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)
    assert torch.equal(after, together[:, length:])
    weighting = torch.randn_like(y)
    found = torch.autograd.grad((y * weighting).sum(), [x, before, conv.weight])
    wanted = torch.autograd.grad((expected * weighting).sum(), [x, before, conv.weight])
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_convolution_is_initialised_as_the_identity() -> None:
    x = torch.randn(2, 5, 3)
    y, _ = CausalConv(3, 4)(x)
    assert torch.equal(y, x)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_lmm_continues_exactly_at_every_split(width: int) -> None:
    model = small_lmm(conv_width=width, depth=2)
    x = torch.randn(2, 11, 16, dtype=torch.float64)
    whole, _ = model(x)
    for cut in range(12):
        first, state = model(x[:, :cut])
        second, _ = model(x[:, cut:], state)
        assert torch.allclose(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-10)


def test_lmm_sees_neither_later_tokens_nor_other_batch_elements() -> None:
    model = small_lmm()
    x = torch.randn(2, 17, 16, dtype=torch.float64)
    y, _ = model(x)
    for t in (0, 3, 4, 8, 16):
        changed = x.clone()
        changed[0, t] += 1
        y_changed, _ = model(changed)
        assert torch.equal(y_changed[:, :t], y[:, :t])
        assert torch.equal(y_changed[1], y[1])
        assert not torch.equal(y_changed[0, t], y[0, t])


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("depth", [1, 2])
def test_every_parameter_learns_and_survives_a_checkpoint(num_heads: int, depth: int) -> None:
    model = small_lmm(num_heads, depth=depth).float()
    x = torch.randn(2, 13, 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before, _ = model(x)
    before.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    optimizer.step()
    after, _ = model(x)
    assert not torch.equal(before, after)
    copy = small_lmm(num_heads, depth=depth).float()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(x)[0], after)


def test_an_untrained_memory_keeps_half_of_a_write_over_100_tokens() -> None:
    layer = NeuralMemory(32, 4)
    gates = torch.sigmoid(layer.gates(torch.randn(1, 100, 32)))
    forget = gates[..., -4:]
    assert (1 - forget).prod(dim=1).min() >= 0.5


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads must divide dim; got 3 and 16"):
        NeuralMemory(16, 3)


@pytest.mark.parametrize("centre", ["mean", "last"])
def test_instance_normalisation_is_inverted_exactly(centre: str) -> None:
    norm = ReversibleInstanceNorm(3, centre).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(norm.log_scale)
    torch.nn.init.normal_(norm.shift)
    x = torch.randn(4, 20, 3, dtype=torch.float64) * 7 + 100
    y, statistics = norm.normalise(x)
    assert torch.allclose(norm.restore(y, statistics), x, rtol=0, atol=1e-10)


def test_instance_normalisation_of_a_constant_window_is_finite() -> None:
    norm = ReversibleInstanceNorm(1)
    y, statistics = norm.normalise(torch.full((1, 10, 1), 5.0))
    assert torch.equal(norm.restore(y, statistics), torch.full((1, 10, 1), 5.0))


@pytest.mark.parametrize(("length", "patch", "stride"), [(32, 8, 8), (33, 8, 8), (20, 8, 3), (5, 5, 2)])
def test_patches_end_at_the_last_step_and_cover_all_steps(length: int, patch: int, stride: int) -> None:
    embed = PatchEmbedding(1, patch, patch, stride)
    with torch.no_grad():
        embed.project.weight.copy_(torch.eye(patch))
        embed.project.bias.zero_()
    series = torch.arange(float(length)).view(1, 1, -1)
    patches = embed(series)[0]
    assert len(patches) == embed.num_patches(length)
    assert patches[-1, -1] == length - 1
    assert set(patches.flatten().tolist()) == set(range(length))
