"""Linear forecaster, and its exact least-squares solution from the moments of a series.

Shapes: T rows, C channels, L context steps, H horizon steps, W = L + H. All windows at stride 1 are used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class LinearForecaster(nn.Module):
    """NLinear (Zeng et al., AAAI 2023): a linear map from context to horizon, relative to the last value.

    It is initialised to the naive (last-value) forecast; `solve_linear` gives the least-squares one.

    Args:
        context_length: L.
        horizon: H.
        num_maps: 1 for a map shared by all channels, C for one map per channel.
    """

    def __init__(self, context_length: int, horizon: int, num_maps: int = 1) -> None:
        super().__init__()
        lead = (num_maps,) if num_maps > 1 else ()
        self.weight = nn.Parameter(torch.empty(*lead, context_length, horizon))
        self.bias = nn.Parameter(torch.empty(*lead, horizon))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the map to the naive forecast."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, context: Tensor) -> Tensor:
        """Return the forecast (B, H, C) of context (B, L, C)."""
        last = context[:, -1:]
        deviation = context - last
        if self.weight.ndim == 2:
            return (deviation.transpose(1, 2) @ self.weight + self.bias).transpose(1, 2) + last
        forecast = torch.baddbmm(self.bias.unsqueeze(1), deviation.permute(2, 0, 1), self.weight)  # (C, B, H)
        return forecast.permute(1, 2, 0) + last


class WindowMoments(NamedTuple):
    """Second moments summed over all windows of a series, per channel, in float64.

    The last value of the context is subtracted from each window. The inputs are the L context steps and a constant 1;
    the last step is 0 by construction.
    """

    xx: Tensor  # (C, L + 1, L + 1): products of the inputs
    xy: Tensor  # (C, L + 1, H): products of inputs and targets
    yy: Tensor  # (C,): squared targets
    windows: int


def sum_moments(parts: Sequence[WindowMoments]) -> WindowMoments:
    """Return the moments of the windows of several series together."""
    xx, xy, yy, windows = zip(*parts, strict=True)
    return WindowMoments(torch.stack(xx).sum(0), torch.stack(xy).sum(0), torch.stack(yy).sum(0), sum(windows))


def window_moments(series: Tensor, context_length: int, horizon: int) -> WindowMoments:
    """Return the moments of a series (T, C), in O(T W + L W) instead of the O(T W^2) of a sum over windows.

    The product of steps i + 1 and j + 1, summed over all windows, differs from that of steps i and j only by its first
    and last term, so the first row of products gives all others by recursion.
    """
    x = series.double().T.contiguous()  # (C, T)
    length = context_length + horizon
    count = x.shape[1] - length + 1
    assert count > 0, "the series is shorter than one window"
    first, after = x[:, :length], x[:, count:]  # values that leave and enter the sums when the step index increases
    products = x.new_zeros(x.shape[0], context_length, length)  # of steps i < L and i <= j < W
    for j in range(length):
        products[:, 0, j] = torch.linalg.vecdot(x[:, :count], x[:, j : j + count])
    for i in range(context_length - 1):
        moved = products[:, i, i:-1] + after[:, i : i + 1] * after[:, i:] - first[:, i : i + 1] * first[:, i:-1]
        products[:, i + 1, i + 1 :] = moved
    inputs = products[:, :, :context_length]
    inputs = inputs.triu() + inputs.triu(1).mT
    squares = _moving_sum(x.square(), count)
    return _centre(inputs, products[:, :, context_length:], squares[:, context_length:], _moving_sum(x, count), count)


def _moving_sum(x: Tensor, count: int) -> Tensor:
    """Return sums (C, T - count + 1) of `count` consecutive values in x (C, T)."""
    total = torch.nn.functional.pad(x.cumsum(1), (1, 0))
    return total[:, count:] - total[:, :-count]


def _centre(xx: Tensor, xy: Tensor, yy: Tensor, sums: Tensor, count: int) -> WindowMoments:
    """Convert moments of raw windows to those of windows minus the last value of their context."""
    length = xx.shape[1]
    last = length - 1
    square = xx[:, last, last, None, None]
    x_last, y_last = xx[:, :, last, None], xy[:, last, None, :]  # (C, L, 1), (C, 1, H)
    sum_last = sums[:, last, None]
    moments = xx.new_empty(xx.shape[0], length + 1, length + 1)
    moments[:, :length, :length] = xx - x_last - x_last.mT + square
    moments[:, :length, length] = moments[:, length, :length] = sums[:, :length] - sum_last
    moments[:, length, length] = count
    cross = torch.cat([xy - x_last - y_last + square, (sums[:, length:] - sum_last).unsqueeze(1)], dim=1)
    targets = yy - 2 * y_last.squeeze(1) + square.squeeze(2)
    return WindowMoments(moments, cross, targets.sum(1), count)


def solve_linear(moments: WindowMoments, penalty: float, shrinkage: float | None = None) -> LinearForecaster:
    """Return the least-squares map with a ridge penalty.

    Args:
        moments: of the training windows.
        penalty: the ridge, relative to the mean square of the inputs; the bias is not penalised.
        shrinkage: None gives one map for all channels. A number gives each channel its own map, fitted to its own
            windows and, with this weight, to the average channel's: 0 is an independent map per channel, and larger
            numbers shrink it towards the shared one.
    """
    factors, _ = normal_equations(moments, penalty, shrinkage)
    return to_forecaster(torch.cholesky_solve(pooled(moments.xy, shrinkage), factors))


def pooled(sums: Tensor, shrinkage: float | None) -> Tensor:
    """Combine the sums of each channel (C, ...) into those that each map is fitted to, (M, ...); see `solve_linear`."""
    if shrinkage is None:
        return sums.sum(0, keepdim=True)
    return sums + shrinkage * sums.mean(0)


def normal_equations(moments: WindowMoments, penalty: float, shrinkage: float | None) -> tuple[Tensor, Tensor]:
    """Return Cholesky factors (M, L + 1, L + 1) of the normal equations and the ridge of every input, (L + 1,)."""
    xx = pooled(moments.xx, shrinkage)
    ridge = torch.full((xx.shape[1],), float(penalty), dtype=xx.dtype)
    ridge[-1] = 0
    ridge *= xx.mean(0).diagonal()[:-1].mean()
    # The last step is zero by construction, and so is every step of a constant series: the floor keeps the matrix
    # positive definite there.
    floor = (1e-9 * xx.mean(0).diagonal()[:-1].mean()).clamp_min(1e-9 * moments.windows)
    return torch.linalg.cholesky(xx + torch.diag(ridge.clamp_min(floor))), ridge


def to_forecaster(maps: Tensor) -> LinearForecaster:
    """Build a forecaster from maps (M, L + 1, H), whose last row is the bias."""
    model = LinearForecaster(maps.shape[1] - 1, maps.shape[2], num_maps=len(maps))
    maps = maps.squeeze(0).float()
    model.load_state_dict({"weight": maps[..., :-1, :], "bias": maps[..., -1, :]})
    return model


def share_map(model: LinearForecaster, num_maps: int) -> LinearForecaster:
    """Copy a shared map into one map for each of `num_maps` channels."""
    context_length, horizon = model.weight.shape
    each = LinearForecaster(context_length, horizon, num_maps)
    state = {name: x.expand(num_maps, *x.shape) for name, x in model.state_dict().items()}
    each.load_state_dict(state if num_maps > 1 else model.state_dict())
    return each


@torch.inference_mode()
def squared_error(model: LinearForecaster, moments: WindowMoments) -> float:
    """Return the map's mean squared error over all windows, steps and channels."""
    maps = torch.cat([model.weight, model.bias.unsqueeze(-2)], dim=-2).double()
    maps = maps.expand(len(moments.xx), *maps.shape[-2:])
    explained = (maps * (2 * moments.xy - moments.xx @ maps)).sum()
    return float((moments.yy.sum() - explained) / (moments.windows * moments.xy.shape[2] * len(moments.xx)))


def best_of(candidates: Sequence[LinearForecaster], moments: WindowMoments) -> LinearForecaster:
    """Return the candidate with the least squared error."""
    return min(candidates, key=lambda model: squared_error(model, moments))
