import pytest
import torch
from torch.nn import functional as F

from titans_seq.nn.norm import RMSNorm


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 5, 4, 7)])
def test_rms_norm_and_its_gradients_are_those_of_torch(shape):
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    x.view(-1, 7)[0] = 0  # the denominator is eps alone
    norm = RMSNorm(7).double()
    torch.nn.init.normal_(norm.weight, generator=generator)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    weight = norm.weight.detach().clone().requires_grad_()
    y, expected = norm(ours), F.rms_norm(theirs, (7,), weight, 1e-6)
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        ours.grad, theirs.grad, rtol=1e-12, atol=1e-9
    )  # gradients are 1e3 times as large where x is 0
    torch.testing.assert_close(norm.weight.grad, weight.grad, rtol=1e-12, atol=1e-12)


def test_rms_norm_of_non_contiguous_features():
    x = torch.randn(2, 6, 5, dtype=torch.float64).transpose(1, 2).requires_grad_()
    assert torch.autograd.gradcheck(RMSNorm(6).double(), x)


def test_rms_norm_of_half_precision_is_that_of_torch():
    x, norm = torch.randn(4, 8, dtype=torch.bfloat16), RMSNorm(8)
    torch.testing.assert_close(norm.bfloat16()(x), F.rms_norm(x, (8,), norm.weight, 1e-6), rtol=0, atol=0)


def test_the_gradient_of_rms_norm_keeps_its_precision_inside_autocast():
    x, grad, norm = torch.randn(4, 7, 64, requires_grad=True), torch.randn(4, 7, 64), RMSNorm(64)
    torch.nn.init.normal_(norm.weight)
    (expected,) = torch.autograd.grad(norm(x), x, grad)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(norm(x), x, grad)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
