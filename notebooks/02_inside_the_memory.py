# %% [markdown]
# # Inside the memory: surprise, retention and recall
#
# The memory is a small network whose weights are written while a sequence is read. Per token it reports its *surprise*
# (the norm of the token's gradient, eq 12 of [arXiv 2501.00663](https://arxiv.org/abs/2501.00663)), its gates, and the
# norms of its weights and of their updates. This notebook plots them for two real series, then measures recall and
# forgetting on random tokens.

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from IPython.display import Image
from torch.nn import functional as F

from datamodules.time_series.datasets.ett import ETT
from datamodules.time_series.datasets.weather import Weather
from datamodules.time_series.series import Scaler
from titans_seq.nn import NeuralMemory
from titans_seq.ops import titans_memory
from titans_seq.plots import Panel, plot_panels

FAST = bool(os.environ.get("TITANS_SEQ_FAST"))  # set by the tests
os.chdir(mkdtemp())  # all files of this notebook go there
torch.manual_seed(0)


def show(name, panels, **options):
    """Draw the panels and display the image."""
    plot_panels(Path(f"{name}.png"), panels, **options)
    return Image(filename=f"{name}.png")


# %% [markdown]
# ## Two years of ETTh1, one token per day
#
# Each token is one day of a series: its hours, all channels concatenated. A single memory layer reads the days in order
# and predicts the next one. It is trained on the training rows of the usual split (ETTh1's first twelve months), with a
# few passes over one long sequence with dropout. Then it reads the whole series once, and its statistics are plotted.


# %%
class NextToken(torch.nn.Module):
    """Map tokens (1, T, features) to a forecast of each next token, and the memory's statistics."""

    def __init__(self, features: int, dim: int = 16) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(features, dim)
        self.norm = torch.nn.RMSNorm(dim)
        self.memory = NeuralMemory(dim, num_heads=2, chunk_size=4)
        self.head = torch.nn.Linear(dim, features)

    def forward(self, tokens, dropout=0.0):
        x = self.embed(F.dropout(tokens, dropout, training=dropout > 0))
        y, _, stats = self.memory(self.norm(x), return_stats=True)
        return tokens + self.head(x + y), stats


def train(model, tokens, steps):
    """Minimise the squared error of the next token on (1, T, features) with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(steps):
        loss = F.mse_loss(model(tokens, dropout=0.3)[0][:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def tokenize(series, length):
    """z-scored tokens of `length` steps (1, T, length x channels), their times, how many are for training."""
    scaler = Scaler.fit(series.values[: series.boundaries.train])
    values = torch.from_numpy(scaler.transform(series.values)).float()
    count = len(values) // length
    tokens = values[: count * length].reshape(1, count, -1)
    return tokens, series.timestamps[: count * length : length], series.boundaries.train // length


def per_token(stat):
    """Average a statistic (1, T, H) over heads."""
    return stat[0].mean(-1).numpy()


# %%
etth1 = ETT("ETTh1")
etth1.prepare()
days, dates, train_days = tokenize(etth1.load(), 24)
model = train(NextToken(days.shape[-1]), days[:, :train_days], 3 if FAST else 120)
with torch.no_grad():
    forecast, stats = model(days)
error = (forecast[0, :-1] - days[0, 1:]).square().mean(-1).numpy()
repeated = (days[0, 1:] - days[0, :-1]).square().mean(-1).numpy()
print(f"next-day MSE after the training months: {error[train_days:].mean():.3f}")
print(f"of repeating the day before:            {repeated[train_days:].mean():.3f}")

# %%
surprise = per_token(stats.surprise)
first = 14  # warm-up days, excluded from the ranking
settled = surprise[first:]
print("most surprising days after the first fortnight:")
print([str(dates[first + i])[:10] for i in np.argsort(settled)[-6:][::-1]])
flat, training_ends = np.datetime64("2016-07-31"), dates[train_days]
show(
    "etth1",
    [
        Panel(
            "surprise\n(gradient norm)",
            {"surprise": (dates, surprise)},
            {"flat day": flat, "training ends": training_ends},
        ),
        Panel(
            "MSE of the next day\n(z-scores)",
            {"memory": (dates[1:], error), "day before": (dates[1:], repeated)},
            {"training ends": training_ends},
        ),
        Panel(
            "weights and\nupdates (norm)",
            {"memory": (dates, per_token(stats.memory)), "update": (dates, per_token(stats.update))},
        ),
        Panel(
            "gates",
            {name: (dates, per_token(getattr(stats, name))) for name in ("lr", "momentum", "forget")},
            logarithmic=True,
        ),
    ],
    title="ETTh1, one token a day: what the memory does as it reads",
)

# %% [markdown]
# Surprise measures the distance between the memory's output for a day's key and the day's value. It is high at the
# start, when the memory has stored nothing yet, and on days that differ from those before them. On 2016-07-31 all
# columns of the file are constant. As a forecaster, so small a layer is no better than repeating the day before, as the
# two errors above show.
#
# ## Weather and its missing-value code -9999
#
# 81 cells of Weather contain -9999 for "not measured". Published results keep them. Is surprise higher in these hours,
# if the memory reads the series hour by hour?

# %%
weather = Weather()
weather.prepare()
series = weather.load()
hours, times, train_hours = tokenize(series, 6)
bad = np.unique(np.flatnonzero((series.values == -9999).any(axis=1)) // 6)
model = train(NextToken(hours.shape[-1]), hours[:, :train_hours], 2 if FAST else 40)
with torch.no_grad():
    _, stats = model(hours)
surprise = per_token(stats.surprise)
first = 14 * 24
others = np.setdiff1d(np.arange(first, len(surprise)), bad)
rank = (surprise[others][:, None] < surprise[bad]).mean(0)
print(
    f"hours with -9999: {len(bad)}; median surprise {np.median(surprise[bad]):.2f}, "
    f"of the others {np.median(surprise[others]):.2f}"
)
print(f"each is more surprising than this share of the others: {np.sort(rank)[::-1].round(2)}")
cells = (series.values == -9999)[: 6 * len(times)].reshape(len(times), -1).sum(axis=1)


def by_day(hourly):
    """Reshape hourly values (T,) to days (T // 24, 24)."""
    return hourly[: len(hourly) // 24 * 24].reshape(-1, 24)


days = by_day(times)[:, 0]
show(
    "weather",
    [
        Panel(
            "surprise\n(gradient norm)",
            {"day's maximum": (days, by_day(surprise).max(1)), "day's median": (days, np.median(by_day(surprise), 1))},
        ),
        Panel("cells of -9999\n(per day)", {"cells": (days, by_day(cells).sum(1))}),
    ],
    title="Weather, one token an hour, the file as published",
)

# %% [markdown]
# ## Recall as a function of age
#
# This part needs no training: random keys of unit norm and random values are written one after another with fixed
# gates, and afterwards every key is queried once. The recalled fraction of a value (the projection of the output on the
# value) falls with the age of the write, because of forgetting and because later writes overlap with it.


# %%
def recall(length, head_dim=64, *, lr, momentum=0.5, forget=0.002, chunk_size=16, gradient="chunk", seed=0):
    """Return the recalled fraction of each value after all writes, by age (length,)."""
    generator = torch.Generator().manual_seed(seed)
    heads = 16  # as many independent repeats
    k, v = (F.normalize(torch.randn(1, length, heads, head_dim, generator=generator), dim=-1) for _ in range(2))
    gates = (torch.full((1, length, heads), g) for g in (lr, momentum, forget))
    zero = [torch.zeros(heads, head_dim, head_dim)]
    _, state = titans_memory(k, k, v, *gates, zero, chunk_size=chunk_size, gradient=gradient)
    answers = torch.einsum("bthi,bhio->btho", k, state.weights[0])
    return (answers * v).sum(-1).mean((0, 2)).flip(0).numpy()


def smoothed(shares, width=8):
    """Return ages and moving averages over `width` neighbours."""
    return np.arange(len(shares) - width + 1) + width / 2, np.convolve(shares, np.ones(width) / width, mode="valid")


length = 256
lines = {}
for name, options in {
    "forget .002": {"lr": 0.1},
    "forget .02": {"lr": 0.1, "forget": 0.02},
    "forget 0": {"lr": 0.1, "forget": 0.0},
}.items():
    lines[name] = smoothed(recall(length, **options))
rules = {
    "gradients at the chunk's start (16)": smoothed(recall(length, lr=0.1)),
    "at every token (online)": smoothed(recall(length, lr=0.1, gradient="online")),
    "online, lr .4, no momentum": smoothed(recall(length, lr=0.4, momentum=0.0, gradient="online")),
}
show(
    "recall",
    [Panel("recalled fraction\nof a value", lines), Panel("recalled fraction\nof a value", rules)],
    title="A matrix memory of 64 x 64 after 256 writes",
    xlabel="age of the write (tokens)",
)

# %% [markdown]
# A 64 x 64 matrix holds about 64 pairs. Beyond that, old pairs are overwritten even without forgetting, because the
# rule is *error-correcting*: a write changes the output for overlapping keys. Online gradients correct the error at
# every token, chunk gradients only at the start of the chunk, which is the cost of the parallel form.

# %% [markdown]
# ## Forgetting to zero, or to the initial weights
#
# A deep memory that forgets to zero can collapse: each layer's gradient contains the other layers' weights as factors,
# so at zero all gradients vanish. Forgetting to the learned initial weights prevents this. (In training the latter
# diverged more often: `benchmarks/LOG.md`. The default is zero, as in the paper.)


# %%
def norms(forget_to, pieces, piece=64, head_dim=32, forget=0.02, lr=0.002):
    """Return the norm of a two-layer memory's weights after each piece of random tokens."""
    generator = torch.Generator().manual_seed(0)
    shapes = (head_dim, 4 * head_dim), (4 * head_dim, head_dim)
    weights = [torch.randn(1, i, o, generator=generator) / i**0.5 for i, o in shapes]
    state, found = None, []
    for _ in range(pieces):
        k, v = (F.normalize(torch.randn(1, piece, 1, head_dim, generator=generator), dim=-1) for _ in range(2))
        gates = (torch.full((1, piece, 1), g) for g in (lr, 0.5, forget))
        _, state = titans_memory(k, k, v, *gates, weights, state, forget_to=forget_to)
        found.append(sum(float(w.square().sum()) for w in state.weights) ** 0.5)
    return np.array(found)


pieces = 4 if FAST else 40
tokens = 64 * np.arange(1, pieces + 1)
show(
    "deep",
    [
        Panel(
            "norm of the weights\n(1e-12 or more)",
            {f"to {to}": (tokens, np.maximum(norms(to, pieces), 1e-12)) for to in ("zero", "initial")},
            logarithmic=True,
        )
    ],
    title="A two-layer memory, forget .02, small writes of random tokens",
    xlabel="tokens",
)
