# %% [markdown]
# # Quickstart: from a configuration to a plot of forecasts
#
# A Titans forecaster is described by a YAML file and trained by one call, which writes a folder with the results. This
# example uses the built-in simulated data: hourly values with a daily and a weekly cycle whose regimes recur. The
# training takes one to a few minutes on one CPU core; the seconds it took are printed at its end.

# %%
import os
from tempfile import mkdtemp

from IPython.display import Image

from titans_seq.config import load_config, to_yaml
from titans_seq.experiment import fit, predict
from titans_seq.system.console import quiet

quiet()
FAST = bool(os.environ.get("TITANS_SEQ_FAST"))  # set by the tests: a few steps instead of a training
os.chdir(mkdtemp())  # all files of this notebook go there

# %% [markdown]
# ## The configuration
#
# Files are merged from left to right, then `key=value` overrides are applied. An unknown key or an invalid value raises
# a one-line error that names the key and its place. `titans-seq configs` lists the ready files, and
# `titans-seq show-config forecasting/synthetic` prints this configuration.

# %%
short = ["trainer.max_steps=4", "trainer.limit_batches=4"] if FAST else []
config = load_config(
    ["forecasting/synthetic"],
    ["run.dir=run", "logging.wandb=off", "trainer.progress_bar=false", "seed=0", *short],
)
print(to_yaml(config)[:900])

# %% [markdown]
# ## Train, select on validation, test once

# %%
run = fit(config)

# %% [markdown]
# `run.results` is the content of `results.json`: the test error of the checkpoint selected on validation, and the
# errors of the baselines on the same windows. The linear forecast is the least-squares map of the training windows. The
# model starts from this map, so the difference between the two is the contribution of the memory.

# %%
for name, scores in {"LMM": run.results, **run.results["baselines"]}.items():
    print(f"{name:28} MSE {scores['test/mse']:.4f}   MAE {scores['test/mae']:.4f}")

# %%
Image(filename=str(run.folder / "plots" / "forecast.png"))

# %% [markdown]
# ## The table of forecasts
#
# In the units of the source, one row per time, channel and forecast origin (the last time that the model saw).

# %%
table = predict(
    run.folder / "checkpoints" / "best.ckpt",
    "forecasts.parquet",
    ["trainer.progress_bar=false", *(["trainer.limit_batches=1"] if FAST else [])],
)
table.head()

# %% [markdown]
# ## Next steps
#
# - Another variant: `load_config(["forecasting/synthetic", "model/mag"])`. Real data: `forecasting/etth1`.
# - Inner state of the memory: `02_inside_the_memory`.
# - The same on the command line: `titans-seq fit forecasting/synthetic`.
