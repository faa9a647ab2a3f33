# %% [markdown]
# # Quickstart: from a configuration to a picture of forecasts
#
# A Titans forecaster is described by a YAML file, trained by one call, and leaves a folder that says how it went. Here
# it is on the embedded data set: simulated hours with a daily and a weekly cycle whose regimes return. On one CPU core
# this takes about two minutes.

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

from IPython.display import Image

from titans_seq.config import load_config, to_yaml
from titans_seq.experiment import fit, predict
from titans_seq.system.console import quiet

quiet()
FAST = bool(os.environ.get("TITANS_SEQ_FAST"))  # set by the tests: a few steps instead of a training
CONFIGS = Path("../configs") if Path("../configs").is_dir() else Path("configs")
WORK = Path(mkdtemp())

# %% [markdown]
# ## The configuration
#
# Files are merged from left to right, then `key=value` words. A key that does not exist, or a value that does not fit,
# is one line that says which and where. `titans-seq show-config FILE` prints the same.

# %%
short = ["trainer.max_steps=4", "trainer.limit_batches=4"] if FAST else []
config = load_config(
    [CONFIGS / "forecasting/synthetic.yaml"],
    [f"run.dir={WORK / 'run'}", "logging.wandb=off", "trainer.progress_bar=false", "seed=0", *short],
)
print(to_yaml(config)[:900])

# %% [markdown]
# ## Train, select on validation, test once

# %%
run = fit(config)

# %% [markdown]
# `run.results` is what stands in `results.json`: the test error of the checkpoint that validation chose, and those of
# the baselines on the same windows. The linear forecast is the least-squares map of the training windows; the model
# starts from it, so what lies between the two is what the memory has added.

# %%
for name, scores in {"LMM": run.results, **run.results["baselines"]}.items():
    print(f"{name:28} MSE {scores['test/mse']:.4f}   MAE {scores['test/mae']:.4f}")

# %%
Image(filename=str(run.folder / "plots" / "forecast.png"))

# %% [markdown]
# ## Every single forecast
#
# In the units of the source, one row per time, channel and origin (the last time that the model saw).

# %%
table = predict(
    run.folder / "checkpoints" / "best.ckpt",
    WORK / "forecasts.parquet",
    ["trainer.progress_bar=false", *(["trainer.limit_batches=1"] if FAST else [])],
)
table.head()

# %% [markdown]
# ## What next
#
# - Another variant: `load_config([... , CONFIGS / "model/mag.yaml"])`. Real data: `configs/forecasting/etth1.yaml`.
# - What the memory does inside: `02_inside_the_memory`.
# - On the command line all of this is `titans-seq fit configs/forecasting/synthetic.yaml`.
