"""Features of the universal forecaster."""

import torch

from titans_seq.models.universal.features import arcsinh


def test_arcsinh_is_that_of_torch() -> None:
    sizes = torch.cat([torch.zeros(1), torch.logspace(-12, 18, 3001)])
    x = torch.cat([sizes, -sizes])
    torch.testing.assert_close(arcsinh(x), torch.asinh(x.double()).float(), rtol=3e-7, atol=3e-7)
    assert torch.isfinite(arcsinh(torch.tensor([3e38, -3e38]))).all()
