"""The layers against a transcription of their papers' equations, token by token, with torch's own convolution."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.mixers.delta_product import DeltaProduct
from titans_seq.nn.mixers.gated_delta_net import GatedDeltaNet
from titans_seq.nn.mixers.gla import GatedLinearAttention
from titans_seq.nn.mixers.mamba2 import Mamba2
from titans_seq.nn.mixers.mlstm import MLSTM
from titans_seq.nn.mixers.parts import GatedOutput, HeadDecay, ShortConv, initial_step_bias
from titans_seq.nn.mixers.retnet import MultiScaleRetention
from titans_seq.nn.mixers.ttt import TTTLayer

DIM, HEADS, KEYS, VALUES, LENGTH = 8, 2, 4, 12, 19


def randomised(layer: nn.Module) -> nn.Module:
    """The layer in float64, with parameters that are far from their initial values."""
    generator = torch.Generator().manual_seed(0)
    layer.double()
    for parameter in layer.parameters():
        noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.data.add_(noise, alpha=0.3)
    return layer


def tokens() -> Tensor:
    return torch.randn(2, LENGTH, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def heads(x: Tensor) -> Tensor:
    return x.reshape(2, LENGTH, HEADS, -1)


def convolved(x: Tensor, short: ShortConv) -> Tensor:
    """SiLU after the convolution, which is depthwise and sees the token and those before it."""
    weight = short.conv.weight.T.unsqueeze(1)  # (channels, 1, width)
    padded = F.pad(x.transpose(1, 2), (weight.shape[-1] - 1, 0))
    return F.silu(F.conv1d(padded, weight, short.bias, groups=x.shape[-1]).transpose(1, 2))


def decays(x: Tensor, decay: HeadDecay) -> Tensor:
    return torch.exp(-torch.exp(decay.log_rate) * F.softplus(x @ decay.step.weight.T + decay.step_bias))


def output(y: Tensor, x: Tensor, layer: GatedOutput) -> Tensor:
    root = (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    normed = (y / root * layer.norm.weight).flatten(2)
    return (normed * F.silu(x @ layer.gate.weight.T)) @ layer.out.weight.T


def assert_equals(layer: nn.Module, x: Tensor, expected: Tensor) -> None:
    y, _ = layer(x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("beta_max", [1.0, 2.0])
def test_gated_delta_net(beta_max: float) -> None:
    layer = GatedDeltaNet(DIM, HEADS, key_width=KEYS, value_width=VALUES, beta_max=beta_max)
    randomised(layer)
    x = tokens()
    q, k, v = (heads(p) for p in convolved(x @ layer.qkv.weight.T, layer.short).split([KEYS, KEYS, VALUES], dim=-1))
    q, k = F.normalize(q, dim=-1) / (KEYS // HEADS) ** 0.5, F.normalize(k, dim=-1)
    beta, alpha = beta_max * torch.sigmoid(x @ layer.beta.weight.T), decays(x, layer.decay)
    s, outputs = torch.zeros(2, HEADS, VALUES // HEADS, KEYS // HEADS, dtype=torch.float64), []
    for t in range(LENGTH):  # S_t = S_{t-1} (a (I - beta k k^T)) + beta v k^T
        kk = torch.einsum("bhi,bhj->bhij", k[:, t], k[:, t])
        a, b = alpha[:, t, :, None, None], beta[:, t, :, None, None]
        s = s @ (a * (torch.eye(KEYS // HEADS) - b * kk)) + b * torch.einsum("bhv,bhk->bhvk", v[:, t], k[:, t])
        outputs.append(torch.einsum("bhvk,bhk->bhv", s, q[:, t]))
    assert_equals(layer, x, output(torch.stack(outputs, dim=1), x, layer.output))


def test_delta_product() -> None:
    steps = 3
    layer = DeltaProduct(DIM, HEADS, key_width=KEYS, value_width=VALUES, steps=steps)
    randomised(layer)
    x = tokens()
    widths = [KEYS, steps * KEYS, steps * VALUES]
    q, k, v = convolved(x @ layer.qkv.weight.T, layer.short).split(widths, dim=-1)
    q = F.normalize(heads(q), dim=-1) / (KEYS // HEADS) ** 0.5
    beta, alpha = 2 * torch.sigmoid(x @ layer.beta.weight.T), decays(x, layer.decay)
    s, outputs = torch.zeros(2, HEADS, VALUES // HEADS, KEYS // HEADS, dtype=torch.float64), []
    for t in range(LENGTH):  # A = a (I - beta_1 k_1 k_1^T) (I - beta_2 k_2 k_2^T) ..., the steps one after the other
        s = s * alpha[:, t, :, None, None]
        for i in range(steps):
            key = F.normalize(k[:, t].chunk(steps, -1)[i].reshape(2, HEADS, -1), dim=-1)
            value = v[:, t].chunk(steps, -1)[i].reshape(2, HEADS, -1)
            b = beta[:, t].chunk(steps, -1)[i][..., None, None]
            kk = torch.einsum("bhi,bhj->bhij", key, key)
            s = s @ (torch.eye(KEYS // HEADS) - b * kk) + b * torch.einsum("bhv,bhk->bhvk", value, key)
        outputs.append(torch.einsum("bhvk,bhk->bhv", s, q[:, t]))
    assert_equals(layer, x, output(torch.stack(outputs, dim=1), x, layer.output))


def test_mamba2() -> None:
    state_size = 5
    layer = Mamba2(DIM, HEADS, value_width=VALUES, state_size=state_size)
    randomised(layer)
    x = tokens()
    z, xbc, step = (x @ layer.projection.weight.T).split([VALUES, VALUES + 2 * state_size, HEADS], dim=-1)
    inputs, b, c = convolved(xbc, layer.short).split([VALUES, state_size, state_size], dim=-1)
    inputs, step = heads(inputs), F.softplus(step + layer.step_bias)
    a = -layer.log_rate.exp()
    h, outputs = torch.zeros(2, HEADS, VALUES // HEADS, state_size, dtype=torch.float64), []
    for t in range(LENGTH):  # h = exp(dt A) h + dt B x, y = C h + D x
        write = torch.einsum("bh,bhp,bn->bhpn", step[:, t], inputs[:, t], b[:, t])
        h = (step[:, t] * a).exp()[..., None, None] * h + write
        outputs.append(torch.einsum("bhpn,bn->bhp", h, c[:, t]) + layer.skip * inputs[:, t])
    y = torch.stack(outputs, dim=1).flatten(2) * F.silu(z)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
    assert_equals(layer, x, y @ layer.out.weight.T)


def test_gated_linear_attention() -> None:
    layer = GatedLinearAttention(DIM, HEADS, key_width=KEYS, value_width=VALUES)
    randomised(layer)
    x = tokens()
    q, k, v = (heads(p) for p in (x @ layer.qkv.weight.T).split([KEYS, KEYS, VALUES], dim=-1))
    down, up = layer.decay
    a = heads(torch.sigmoid(x @ down.weight.T @ up.weight.T + up.bias) ** (1 / 16))
    s, outputs = torch.zeros(2, HEADS, KEYS // HEADS, VALUES // HEADS, dtype=torch.float64), []
    for t in range(LENGTH):
        s = a[:, t].unsqueeze(-1) * s + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, q[:, t]) / (KEYS // HEADS) ** 0.5)
    assert_equals(layer, x, output(torch.stack(outputs, dim=1), x, layer.output))


def test_retention() -> None:
    """The parallel form: (Q e^{i n theta}) (K e^{-i m theta}) gamma^(n - m), with absolute positions."""
    width = 8
    layer = MultiScaleRetention(DIM, HEADS, key_width=width, value_width=VALUES)
    randomised(layer)
    x = tokens()
    q, k, v = (heads(p) for p in (x @ layer.qkv.weight.T).split([width, width, VALUES], dim=-1))
    half = width // HEADS // 2
    theta = 10_000 ** (-torch.arange(half, dtype=torch.float64) / half)
    position = torch.arange(100, 100 + LENGTH, dtype=torch.float64)  # only distances matter
    turn = torch.exp(1j * position[:, None, None] * theta)
    q, k = (torch.complex(p[..., :half], p[..., half:]) * turn for p in (q, k))
    scores = torch.einsum("bthd,bjhd->bhtj", q, k.conj()).real / (2 * half) ** 0.5
    distance = position[:, None] - position
    gamma = 1 - 2.0 ** (-5 - torch.arange(HEADS, dtype=torch.float64))
    weights = torch.where(distance >= 0, gamma[:, None, None] ** distance.clamp_min(0), 0)
    y = torch.einsum("bhtj,bjhv->bthv", scores * weights, v)
    assert_equals(layer, x, output(y, x, layer.output))


def test_mlstm() -> None:
    """The cell without its stabiliser, which float64 does not need here."""
    layer = MLSTM(DIM, HEADS, key_width=KEYS, value_width=VALUES)
    randomised(layer)
    x = tokens()
    q, k, v = (heads(p) for p in (x @ layer.qkv.weight.T).split([KEYS, KEYS, VALUES], dim=-1))
    q = q / (KEYS // HEADS) ** 0.5
    logits = 15 * torch.tanh((x @ layer.gates.weight.T + layer.gates.bias) / 15)
    write, forget = logits[..., :HEADS].exp(), torch.sigmoid(logits[..., HEADS:])
    c, n = (torch.zeros(2, HEADS, *shape, dtype=torch.float64) for shape in ((KEYS // HEADS, VALUES // HEADS), (2,)))
    outputs = []
    for t in range(LENGTH):
        f, i = forget[:, t, :, None], write[:, t, :, None]
        c = f.unsqueeze(-1) * c + i.unsqueeze(-1) * torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        n = f * n + i * k[:, t]
        read = torch.einsum("bhkv,bhk->bhv", c, q[:, t])
        outputs.append(read / (n * q[:, t]).sum(-1, keepdim=True).abs().clamp_min(1))
    y = torch.stack(outputs, dim=1)
    normed = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
    assert_equals(layer, x, (normed.flatten(2) * torch.sigmoid(x @ layer.out_gate.weight.T)) @ layer.out.weight.T)


@pytest.mark.parametrize("depth", [1, 2])
def test_ttt(depth: int) -> None:
    """One mini-batch after the other, with autograd's gradients of the inner loss."""
    size, width = 5, DIM // HEADS
    layer = TTTLayer(DIM, HEADS, depth=depth, chunk_size=size)
    randomised(layer)
    x = tokens()
    q, k, v = (heads(p) for p in (x @ layer.qkv.weight.T).chunk(3, dim=-1))
    half = width // 2
    theta = 10_000 ** (-torch.arange(half, dtype=torch.float64) / half)
    turn = torch.exp(1j * (torch.arange(LENGTH) % size)[:, None, None] * theta)
    turned = [torch.complex(p[..., :half], p[..., half:]) * turn for p in (q, k)]
    q, k = (torch.cat([p.real, p.imag], dim=-1) for p in turned)
    lr = (1.0 if depth == 1 else 0.1) / width * torch.sigmoid(x @ layer.lr.weight.T + layer.lr.bias)
    scale = (1 / torch.arange(1, size + 1) + layer.scale_offset).clamp_min(0)

    def norm(z: Tensor, h: int) -> Tensor:
        return F.layer_norm(z, (width,), layer.inner_weight[h, 0], layer.inner_bias[h, 0], 1e-6)

    def read(w: list[Tensor], z: Tensor) -> Tensor:
        return z @ w[0] + w[1] if depth == 1 else F.gelu(z @ w[0] + w[1], approximate="tanh") @ w[2] + w[3]

    y = torch.zeros(2, LENGTH, HEADS, width, dtype=torch.float64)
    for b, h in product(range(2), range(HEADS)):
        w = [p[h].detach().requires_grad_() for p in layer.initial]
        for t in range(LENGTH):
            if t % size == 0:
                start, sums = w, [torch.zeros_like(p) for p in w]
            loss = (norm(read(start, k[b, t, h][None]), h) - (v[b, t, h] - k[b, t, h])).square().sum() / 2
            gradients = torch.autograd.grad(loss, start, retain_graph=True)
            sums = [s + lr[b, t, h] * g for s, g in zip(sums, gradients, strict=True)]
            w = [(p - scale[t % size] * s).detach().requires_grad_() for p, s in zip(start, sums, strict=True)]
            y[b, t, h] = (q[b, t, h] + norm(read(w, q[b, t, h][None]), h)[0]).detach()
    joined = F.layer_norm(y.flatten(2), (DIM,), layer.norm.weight, layer.norm.bias, 1e-6)
    assert_equals(layer, x, joined @ layer.out.weight.T)


def test_initial_steps_are_those_of_mamba() -> None:
    steps = F.softplus(initial_step_bias(1000).double())
    assert steps.min() > 0.001 * (1 - 1e-3)
    assert steps.max() < 0.1 * (1 + 1e-3)
    assert abs(steps.log().mean().item() - (torch.tensor([0.001, 0.1]).log().mean().item())) < 0.2


def test_a_long_stream_of_retention_keeps_its_precision() -> None:
    """No position is carried over: after ten thousand tokens, float32 reads as float64 does."""
    layer = MultiScaleRetention(DIM, HEADS, key_width=8, value_width=VALUES)
    x = torch.randn(1, 10_000, DIM, generator=torch.Generator().manual_seed(2))
    _, state = layer(x)
    found, _ = layer(x[:, :50], state)
    expected, _ = layer.double()(torch.cat([x, x[:, :50]], dim=1).double())
    torch.testing.assert_close(found.double(), expected[:, -50:], rtol=1e-3, atol=1e-4)


def test_an_odd_width_of_keys_raises() -> None:
    with pytest.raises(ValueError, match="the width of a head must be even; got 3"):
        TTTLayer(6, 2)
    with pytest.raises(ValueError, match="the width of a head's keys must be even; got 3"):
        MultiScaleRetention(DIM, HEADS, key_width=6, value_width=VALUES)
