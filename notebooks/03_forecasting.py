# %% [markdown]
# # Forecasting: error analysis
#
# One number per dataset hides most of a forecaster's behaviour. This notebook analyses a few training runs on the
# built-in simulated data: variants and baselines with their spread, error by step, channel and lookback, empirical
# coverage of the intervals, best and worst windows. There are two seeds each and a few epochs, so that it runs in
# ten to twenty minutes on one core; results on the published datasets are in
# [docs/forecasting_results.md](../docs/forecasting_results.md).

# %%
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import polars as pl
import torch
from IPython.display import Image

from titans_seq.config import load_config
from titans_seq.experiment import fit, load_run, predict
from titans_seq.experiment.forecasting.plots import plot_forecasts
from titans_seq.plots import Panel, plot_panels
from titans_seq.system.console import quiet

quiet()
FAST = bool(os.environ.get("TITANS_SEQ_FAST"))  # set by the tests
os.chdir(mkdtemp())  # all files of this notebook go there
SEEDS = (0, 1)


def train(name, *words, files=()):
    """Train without console output; the run folder has the logs and results."""
    short = ["trainer.max_steps=2", "trainer.limit_batches=2"] if FAST else ["trainer.max_epochs=3"]
    common = [f"run.dir={name}", "logging.wandb=off", "trainer.progress_bar=false", *short]
    with redirect_stdout(StringIO()):
        return fit(load_config(["forecasting/synthetic", *files], [*common, *words]))


def show(name, panels, **options):
    """Draw the panels and display the image."""
    plot_panels(Path(f"{name}.png"), panels, **options)
    return Image(filename=f"{name}.png")


# %% [markdown]
# ## Variants and baselines, with spread
#
# All models start from the least-squares linear map. A difference between two variants counts only if it is clearly
# larger than the spread over seeds.

# %%
variants = {"LMM": "model/lmm", "MAG": "model/mag", "attention only": "model/transformer"}
runs = {
    (name, seed): train(f"{name}-{seed}", f"seed={seed}", "model.patch_length=24", files=[file])
    for name, file in variants.items()
    for seed in SEEDS
}
for name in variants:
    scores = np.array([[runs[name, seed].results[f"test/{key}"] for key in ("mse", "mae")] for seed in SEEDS])
    mean, spread = scores.mean(0), scores.std(0, ddof=1)
    print(f"{name:28} MSE {mean[0]:.4f} ± {spread[0]:.4f}   MAE {mean[1]:.4f} ± {spread[1]:.4f}")
for name, scores in runs["LMM", 0].results["baselines"].items():
    print(f"{name:28} MSE {scores['test/mse']:.4f}            MAE {scores['test/mae']:.4f}")

# %% [markdown]
# ## By step of the horizon, and by channel
#
# In the units of the source, from the table that `titans-seq predict` writes.

# %%
table = predict(
    runs["LMM", 0].folder / "checkpoints" / "best.ckpt", "lmm.parquet", ["trainer.progress_bar=false"]
).with_columns((pl.col("forecast") - pl.col("truth")).abs().alias("error"))
by_step = table.group_by("step", "channel").agg(pl.col("error").mean()).sort("step")
channels = table["channel"].unique(maintain_order=True).to_list()
lines = {
    channel: tuple(by_step.filter(pl.col("channel") == channel)[column].to_numpy() for column in ("step", "error"))
    for channel in channels
}
show(
    "steps",
    [Panel("mean absolute error\n(source units)", lines)],
    title="LMM, seed 0",
    xlabel="step of the horizon (hours)",
)

# %% [markdown]
# ## By lookback
#
# A longer lookback helps as long as it adds information that the model can learn in its few epochs. Each LMM is trained
# with both seeds: a difference between two lookbacks counts only if it is larger than that between the seeds.

# %%
lookbacks = (72, 168, 336, 672)
errors = {f"LMM, seed {seed}": [] for seed in SEEDS} | {"linear (least squares)": []}
for lookback in lookbacks:
    for seed in SEEDS:
        run = train(f"lookback-{lookback}-{seed}", f"data.context_length={lookback}", f"seed={seed}")
        errors[f"LMM, seed {seed}"].append(run.results["test/mse"])
    errors["linear (least squares)"].append(run.results["baselines"]["linear (least squares)"]["test/mse"])
lines = {name: (np.array(lookbacks), np.array(values)) for name, values in errors.items()}
show(
    "lookback",
    [Panel("test MSE\n(z-scores)", lines, markers=True)],
    title="Error by lookback, horizon 48",
    xlabel="lookback (hours)",
)

# %% [markdown]
# ## Empirical coverage of the intervals
#
# A quantile head learns its quantiles with the pinball loss. Conformal intervals are adjusted on the validation rows
# until they have the nominal coverage there. What is their empirical coverage on the test rows?

# %%
quantile = train("quantile", "model.head=quantile", "task.intervals=[0.5,0.8,0.9,0.95]", "seed=0").results
for key, value in quantile.items():
    if key.startswith(("test/coverage", "test/interval")):
        kind, nominal = key.removeprefix("test/").split("_")
        label = "quantile head" if kind == "coverage" else "conformal"
        print(f"{label:14} nominal {float(nominal):5.1f} %   empirical {100 * value:5.1f} %")
if "test/crps" in quantile:
    print(f"CRPS {quantile['test/crps']:.4f} (z-scores)")

# %% [markdown]
# ## The best and the worst windows
#
# The mean error hides how much single windows differ: here are the windows with the lowest, median and highest error.

# %%
_, task, data = load_run(runs["LMM", 0].folder / "checkpoints" / "best.ckpt")
windows = data.windows("test")
task.eval()
with torch.inference_mode():
    starts = np.arange(0, len(windows), 24)
    batch = windows[starts]
    forecast = task(batch.context)
error = (forecast - batch.target).square().mean((1, 2))
chosen = [int(error.argmin()), int(error.argsort()[len(error) // 2]), int(error.argmax())]
context = data.context_length
first = data.rows("test")[0] + starts[chosen]
last_days = 96
plot_forecasts(
    Path("windows.png"),
    timestamps=[data.series.timestamps[row + context - last_days : row + context + data.horizon] for row in first],
    history=data.scaler.inverse(batch.context[chosen, -last_days:].double().numpy()),
    truth=data.scaler.inverse(batch.target[chosen].double().numpy()),
    forecast=data.scaler.inverse(forecast[chosen].double().numpy()),
    channels=data.series.channels,
    windows=[
        f"{name} window, MSE {error[i]:.2f} (z-scores)"
        for name, i in zip(("best", "median", "worst"), chosen, strict=True)
    ],
    title="Best, median and worst of the test windows, LMM, seed 0",
)
Image(filename="windows.png")
