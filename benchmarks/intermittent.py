"""Quantile head against count distributions on simulated intermittent demand: weighted quantile loss, horizon 14.

Series of `simulate_intermittent` with at least 30 % zeros and a mean below 10; 70 % of the rows train, 10 % select the
step, 20 % test. All heads share the trunk (patches, LMM, the same optimiser and steps) and are scored by the same
quantiles. Heads: `quantile`, the shipped one, not below 0; `negbin`, a negative binomial; `zinb`, the same with its own
probability of zero. `past` is the empirical quantiles of the last 56 rows.

    python benchmarks/intermittent.py --seeds 0 1 2
"""

import argparse
import statistics

import numpy as np
import torch
from numpy.typing import NDArray
from record import record
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.time_series.simulated.intermittent import simulate_intermittent
from titans_seq.backbone import build_backbone
from titans_seq.models.forecaster import Forecaster
from titans_seq.nn.embedding import PatchEmbedding
from titans_seq.schema import ForecastingModelOptions
from titans_seq.tasks.quantiles import pinball

LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
LENGTH, CONTEXT, HORIZON, PATCH = 400, 56, 14, 7
BATCH, EVERY = 128, 100
COUNTS = 400  # largest count of the distributions' quantiles


def simulated(seed: int, series: int) -> NDArray[np.float64]:
    """Draw intermittent series (series, LENGTH)."""
    rng = np.random.default_rng(seed)
    values, _ = simulate_intermittent(rng, 8 * series, LENGTH)
    train = values[:, : int(0.7 * LENGTH)]
    is_kept = ((train == 0).mean(1) >= 0.3) & (train.mean(1) < 10) & (train.std(1) > 0) & (values.max(1) < COUNTS)
    return values[is_kept][:series]


def trunk_options() -> ForecastingModelOptions:
    """The backbone of all heads."""
    options = ForecastingModelOptions(dim=32, dropout=0.1, patch_length=PATCH, stride=PATCH)
    options.memory.num_heads = 2
    return options


class Quantiles(nn.Module):
    """The shipped forecaster with its quantile head, on z-scores."""

    def __init__(self, series: NDArray[np.float64]) -> None:
        super().__init__()
        train = torch.tensor(series[:, : int(0.7 * LENGTH)], dtype=torch.float32)
        self.mean, self.std = train.mean(1), train.std(1, correction=0)
        self.forecaster = Forecaster(
            build_backbone(trunk_options()),
            dim=32,
            num_channels=1,
            context_length=CONTEXT,
            horizon=HORIZON,
            patch_length=PATCH,
            stride=PATCH,
            head_dropout=0.1,
            linear_path=True,
            quantiles=LEVELS,
        )

    def forward(self, context: Tensor, member: Tensor) -> Tensor:
        """Return z-scored quantiles (B, H, Q)."""
        z = (context - self.mean[member, None]) / self.std[member, None]
        found: Tensor = self.forecaster.quantiles(z.unsqueeze(-1))[:, :, 0]
        return found

    def loss(self, context: Tensor, target: Tensor, member: Tensor) -> Tensor:
        """Pinball loss of z-scores."""
        z = (target - self.mean[member, None]) / self.std[member, None]
        return pinball(self(context, member), z, torch.tensor(LEVELS)).mean()

    def quantiles(self, context: Tensor, member: Tensor) -> Tensor:
        """Return quantiles (B, H, Q) in counts."""
        return (self(context, member) * self.std[member, None, None] + self.mean[member, None, None]).clamp_min(0)


class CountDistribution(nn.Module):
    """A negative binomial, with its own probability of zero if `inflated`, in units of the series' mean."""

    def __init__(self, series: NDArray[np.float64], *, inflated: bool) -> None:
        super().__init__()
        train = torch.tensor(series[:, : int(0.7 * LENGTH)], dtype=torch.float32)
        self.scale, self.inflated = train.mean(1), inflated
        self.embed = PatchEmbedding(2, 32, PATCH, PATCH)
        self.backbone = build_backbone(trunk_options())
        self.head = nn.Linear(self.embed.num_patches(CONTEXT) * 32, 3 * HORIZON)

    def parameters_of(self, context: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, shape and the probability of an extra zero, each (B, H)."""
        scale = self.scale[member, None]
        features = torch.stack([torch.log1p(context / scale), torch.log1p(context)], dim=1)
        tokens, _ = self.backbone(self.embed(features))
        recent = context.mean(1, keepdim=True) + 0.1 * scale
        mean, shape, zero = self.head(F.dropout(tokens.flatten(1), 0.1, self.training)).chunk(3, dim=1)
        inflation = torch.sigmoid(zero - 2) if self.inflated else torch.zeros_like(zero)
        return recent * F.softplus(mean + 0.55) + 1e-4, F.softplus(shape) + 1e-2, inflation

    def log_probability(self, counts: Tensor, context: Tensor, member: Tensor) -> Tensor:
        """Return log p of counts (..., B, H)."""
        mean, shape, inflation = self.parameters_of(context, member)
        log_nb = (
            torch.lgamma(counts + shape)
            - torch.lgamma(shape)
            - torch.lgamma(counts + 1)
            + shape * torch.log(shape / (shape + mean))
            + counts * torch.log(mean / (shape + mean))
        )
        if not self.inflated:
            return log_nb
        return torch.where(counts == 0, torch.log(inflation + (1 - inflation) * log_nb.exp() + 1e-12),
                           torch.log1p(-inflation) + log_nb)  # fmt: skip

    def loss(self, context: Tensor, target: Tensor, member: Tensor) -> Tensor:
        """Negative log-likelihood."""
        return -self.log_probability(target, context, member).mean()

    def quantiles(self, context: Tensor, member: Tensor) -> Tensor:
        """Return quantiles (B, H, Q) in counts."""
        counts = torch.arange(COUNTS, dtype=torch.float32)[:, None, None]
        cumulated = self.log_probability(counts, context, member).exp().cumsum(0)
        return torch.stack([(cumulated < level).sum(0).clamp_max(COUNTS - 1) for level in LEVELS], dim=-1).float()


class Past(nn.Module):
    """Empirical quantiles of the context."""

    def quantiles(self, context: Tensor, member: Tensor) -> Tensor:
        """Return quantiles (B, H, Q) in counts."""
        return torch.quantile(context, torch.tensor(LEVELS), dim=1).T[:, None].expand(-1, HORIZON, -1)


def windows(series: NDArray[np.float64], begin: int, end: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return contexts, targets and series numbers of windows whose targets lie in rows [begin, end)."""
    rows = np.arange(max(begin, CONTEXT), end - HORIZON + 1, step)
    member, first = (part.ravel() for part in np.meshgrid(np.arange(len(series)), rows, indexing="ij"))
    block = np.lib.stride_tricks.sliding_window_view(series, CONTEXT + HORIZON, axis=1)[member, first - CONTEXT]
    cut = torch.tensor(block, dtype=torch.float32)
    return cut[:, :CONTEXT], cut[:, CONTEXT:], torch.tensor(member)


@torch.inference_mode()
def score(model: nn.Module, parts: tuple[Tensor, Tensor, Tensor]) -> tuple[float, float]:
    """Return the weighted quantile loss of all series together, and its mean over series, each relative to its mean."""
    model.eval()
    batches = zip(*(part.split(256) for part in parts), strict=True)
    losses, sums = [], []
    for context, target, member in batches:
        losses.append(2 * pinball(model.quantiles(context, member), target, torch.tensor(LEVELS)).mean((1, 2)))
        sums.append(target.mean(1))
    loss, size, member = torch.cat(losses), torch.cat(sums), parts[2]
    by_series = [(loss[member == i].mean() / size[member == i].mean()).item() for i in member.unique()]
    finite = [value for value in by_series if np.isfinite(value)]
    return float(loss.sum() / size.sum()), statistics.median(finite)


def train(model: nn.Module, series: NDArray[np.float64], steps: int, seed: int) -> nn.Module:
    """Train on windows of the first 70 % of the rows; the validation loss selects the step."""
    parts = windows(series, 0, int(0.7 * LENGTH), 1)
    held_out = windows(series, int(0.7 * LENGTH), int(0.8 * LENGTH), 3)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, kept = float("inf"), {}
    for step in range(1, steps + 1):
        model.train()
        index = torch.randint(len(parts[0]), (BATCH,), generator=generator)
        optimiser.zero_grad()
        model.loss(*(part[index] for part in parts)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % EVERY == 0 and (found := score(model, held_out)[0]) < best:
            best, kept = found, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--series", type=int, default=150)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in options.seeds:
        series = simulated(seed, options.series)
        test = windows(series, int(0.8 * LENGTH), LENGTH, 7)
        heads = {
            "quantile": lambda s=series: Quantiles(s),
            "negbin": lambda s=series: CountDistribution(s, inflated=False),
            "zinb": lambda s=series: CountDistribution(s, inflated=True),
        }
        for name, build in heads.items():
            torch.manual_seed(seed)
            found.setdefault(name, []).append(score(train(build(), series, options.steps, seed), test))
            print(f"seed {seed}, {name}: WQL {found[name][-1][0]:.4f}, median of the series {found[name][-1][1]:.4f}")
        found.setdefault("past", []).append(score(Past(), test))
        print(f"seed {seed}, past: WQL {found['past'][-1][0]:.4f}, median of the series {found['past'][-1][1]:.4f}")
    record("intermittent", {name: {"wql": [w for w, _ in rows], "median": [m for _, m in rows]}
                            for name, rows in found.items()})  # fmt: skip


if __name__ == "__main__":
    main()
