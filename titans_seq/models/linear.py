"""The best linear forecast, solved exactly from a series' moments.

Shapes: T rows, C channels, L steps of context, H of horizon, W = L + H. All windows at stride 1 count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class LinearForecaster(nn.Module):
    """NLinear (Zeng et al., AAAI 2023): a linear map from context to horizon, around the last value.

    It starts as the last-value forecast; `solve_linear` gives the least-squares one.

    Args:
        context_length: L.
        horizon: H.
        num_maps: 1 for a map that all channels share, C for one map each.
    """

    def __init__(self, context_length: int, horizon: int, num_maps: int = 1) -> None:
        super().__init__()
        lead = (num_maps,) if num_maps > 1 else ()
        self.weight = nn.Parameter(torch.zeros(*lead, context_length, horizon))
        self.bias = nn.Parameter(torch.zeros(*lead, horizon))

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to (B, H, C)."""
        last = context[:, -1:]
        deviation = context - last
        if self.weight.ndim == 2:
            return (deviation.transpose(1, 2) @ self.weight + self.bias).transpose(1, 2) + last
        forecast = torch.baddbmm(self.bias.unsqueeze(1), deviation.permute(2, 0, 1), self.weight)  # (C, B, H)
        return forecast.permute(1, 2, 0) + last


class WindowMoments(NamedTuple):
    """Sums over all windows of a series, per channel, in float64; each window less the last value of its context.

    The inputs are the L steps of context and a constant 1; the last step is 0 by construction.
    """

    xx: Tensor  # (C, L + 1, L + 1): products of the inputs
    xy: Tensor  # (C, L + 1, H): of inputs and targets
    yy: Tensor  # (C,): squares of the targets
    windows: int


def sum_moments(parts: Sequence[WindowMoments]) -> WindowMoments:
    """The moments of the windows of several series together."""
    xx, xy, yy, windows = zip(*parts, strict=True)
    return WindowMoments(torch.stack(xx).sum(0), torch.stack(xy).sum(0), torch.stack(yy).sum(0), sum(windows))


def window_moments(series: Tensor, context_length: int, horizon: int) -> WindowMoments:
    """The moments of a series (T, C), in O(T W + L W) instead of the O(T W^2) of a sum over windows.

    The product of steps i + 1 and j + 1 over all windows differs from that of steps i and j by its first and last
    term, so that one row of products gives all others.
    """
    x = series.double().T.contiguous()  # (C, T)
    length = context_length + horizon
    count = x.shape[1] - length + 1
    assert count > 0, "no window fits"
    first, after = x[:, :length], x[:, count:]  # leave the sums, and enter them, as a step moves on
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
    """Sums (C, T - count + 1) of `count` neighbours in x (C, T)."""
    total = torch.nn.functional.pad(x.cumsum(1), (1, 0))
    return total[:, count:] - total[:, :-count]


def _centre(xx: Tensor, xy: Tensor, yy: Tensor, sums: Tensor, count: int) -> WindowMoments:
    """The moments of windows less their last value of context, from those of the windows as they are."""
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
    """The least-squares map with a ridge penalty, relative to the mean square of the inputs; the bias has none.

    Args:
        moments: of the training windows.
        penalty: the ridge.
        shrinkage: None gives one map for all channels. A number gives each channel its own map, fitted to its own
            windows and, with this weight, to the average channel's: 0 is an independent map per channel, and larger
            numbers move it towards the shared one.
    """
    factors, _ = normal_equations(moments, penalty, shrinkage)
    return to_forecaster(torch.cholesky_solve(pooled(moments.xy, shrinkage), factors))


def pooled(sums: Tensor, shrinkage: float | None) -> Tensor:
    """Sums of each channel (C, ...) to those that each map is fitted to, (M, ...); see `solve_linear`."""
    if shrinkage is None:
        return sums.sum(0, keepdim=True)
    return sums + shrinkage * sums.mean(0)


def normal_equations(moments: WindowMoments, penalty: float, shrinkage: float | None) -> tuple[Tensor, Tensor]:
    """Cholesky factors (M, L + 1, L + 1) of what the maps are solved by, and the ridge of every input, (L + 1,)."""
    xx = pooled(moments.xx, shrinkage)
    ridge = torch.full((xx.shape[1],), float(penalty), dtype=xx.dtype)
    ridge[-1] = 0
    ridge *= xx.mean(0).diagonal()[:-1].mean()
    # The last step is zero by construction, and so is every step of a series that stands still: the floor keeps their
    # rows solvable.
    floor = (1e-9 * xx.mean(0).diagonal()[:-1].mean()).clamp_min(1e-9 * moments.windows)
    return torch.linalg.cholesky(xx + torch.diag(ridge.clamp_min(floor))), ridge


def to_forecaster(maps: Tensor) -> LinearForecaster:
    """maps (M, L + 1, H), the bias last."""
    model = LinearForecaster(maps.shape[1] - 1, maps.shape[2], num_maps=len(maps))
    maps = maps.squeeze(0).float()
    model.load_state_dict({"weight": maps[..., :-1, :], "bias": maps[..., -1, :]})
    return model


def share_map(model: LinearForecaster, num_maps: int) -> LinearForecaster:
    """The map that all channels share as one for each of `num_maps`."""
    context_length, horizon = model.weight.shape
    each = LinearForecaster(context_length, horizon, num_maps)
    state = {name: x.expand(num_maps, *x.shape) for name, x in model.state_dict().items()}
    each.load_state_dict(state if num_maps > 1 else model.state_dict())
    return each


@torch.inference_mode()
def squared_error(model: LinearForecaster, moments: WindowMoments) -> float:
    """The map's mean squared error over all windows, steps and channels."""
    maps = torch.cat([model.weight, model.bias.unsqueeze(-2)], dim=-2).double()
    maps = maps.expand(len(moments.xx), *maps.shape[-2:])
    explained = (maps * (2 * moments.xy - moments.xx @ maps)).sum()
    return float((moments.yy.sum() - explained) / (moments.windows * moments.xy.shape[2] * len(moments.xx)))


def best_of(candidates: Sequence[LinearForecaster], moments: WindowMoments) -> LinearForecaster:
    """The one with the least squared error."""
    return min(candidates, key=lambda model: squared_error(model, moments))
