"""A forecaster: normalise, cut into patches, run a backbone over them, map all tokens to the horizon."""

from torch import Tensor, nn

from titans_seq.models.baselines import LinearForecaster
from titans_seq.nn.embedding import PatchEmbedding
from titans_seq.nn.norm import Centre, ReversibleInstanceNorm


class Forecaster(nn.Module):
    """Patches through a sequence backbone to a flatten head (the frame of PatchTST, Nie et al., ICLR 2023).

    Args:
        backbone: from (B, T, dim) to (B, T, dim) and a state.
        dim: features of its tokens.
        num_channels: C, the series' variables.
        context_length: L, steps the model sees.
        horizon: H, steps it forecasts.
        patch_length, stride: see `PatchEmbedding`.
        channel_mixing: False forecasts every channel from its own past with shared weights; True puts all channels of
            a patch into one token.
        head_dropout: on the head's input.
        linear_path: add a `LinearForecaster`, so that the backbone learns what a linear map cannot say.
        centre: see `ReversibleInstanceNorm`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int,
        num_channels: int,
        context_length: int,
        horizon: int,
        patch_length: int = 16,
        stride: int = 8,
        channel_mixing: bool = False,
        head_dropout: float = 0.0,
        linear_path: bool = False,
        centre: Centre = "mean",
    ) -> None:
        super().__init__()
        features = num_channels if channel_mixing else 1
        self.channel_mixing = channel_mixing
        self.norm = ReversibleInstanceNorm(num_channels, centre)
        self.embed = PatchEmbedding(features, dim, patch_length, stride)
        self.backbone = backbone
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(self.embed.num_patches(context_length) * dim, features * horizon)
        self.linear_path = LinearForecaster(context_length, horizon) if linear_path else None

    def forward(self, context: Tensor) -> Tensor:
        """context (B, L, C) to the forecast (B, H, C), in the same units."""
        x, statistics = self.norm.normalise(context)
        series = x.transpose(1, 2)  # (B, C, L)
        if not self.channel_mixing:
            series = series.reshape(-1, 1, series.shape[2])  # (B C, 1, L)
        tokens, _ = self.backbone(self.embed(series))
        y = self.head(self.dropout(tokens.flatten(1)))
        y = y.view(context.shape[0], context.shape[2], -1).transpose(1, 2)  # (B, H, C)
        forecast = self.norm.restore(y, statistics)
        if self.linear_path is not None:
            forecast = forecast - statistics.centre + self.linear_path(context)
        return forecast

    def start_from(self, linear: LinearForecaster) -> None:
        """Make `linear` the linear path and silence the head, so that training starts at exactly that forecast."""
        assert self.linear_path is not None, "built without a linear path"
        self.linear_path.load_state_dict(linear.state_dict())
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
