# %% [markdown]
# # Your own data: forecast a CSV file, train a classifier on a FASTA file
#
# Both examples start from common file formats. The files here are simulated; replace them with your own. On the command
# line the same steps are `titans-seq fit`, then `titans-seq forecast` or `titans-seq predict`: see
# [docs/your_csv.md](../docs/your_csv.md).

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import polars as pl
from IPython.display import Image

from titans_seq.config import load_config
from titans_seq.experiment import backtest, backtest_text, fit, forecast, mutagenesis, predict
from titans_seq.system.console import quiet

quiet()
FAST = bool(os.environ.get("TITANS_SEQ_FAST"))  # set by the tests
os.chdir(mkdtemp())  # all files of this notebook go there
QUIET = ["logging.wandb=off", "trainer.progress_bar=false"]
SHORT = ["trainer.max_steps=2", "trainer.limit_batches=2"] if FAST else []
rng = np.random.default_rng(0)

# %% [markdown]
# ## A CSV of sales
#
# Daily sales of four stores over three years, with weekly and yearly seasonality, and promotions that are known in
# advance.

# %%
days = pl.date_range(pl.date(2021, 1, 1), pl.date(2023, 12, 31), eager=True)
t = np.arange(len(days))
tables = []
for store, level in {"north": 120, "south": 80, "east": 150, "west": 60}.items():
    promo = (rng.random(len(t)) < 0.08).astype(int)
    week = 1 + 0.25 * np.sin(2 * np.pi * t / 7 + rng.uniform(0, 1))
    year = 1 + 0.15 * np.sin(2 * np.pi * t / 365.25)
    sales = level * week * year * (1 + 0.4 * promo) + rng.normal(0, 0.05 * level, len(t))
    tables.append(pl.DataFrame({"date": days, "store": store, "sales": sales.round(1), "promo": promo}))
table = pl.concat(tables)
table.filter(pl.col("date") < pl.date(2023, 12, 18)).write_csv("sales.csv")  # observed data
plans = table.filter(pl.col("date") >= pl.date(2023, 12, 18))
plans.select("date", "store", "promo").write_csv("plans.csv")  # known future covariates
table.head()

# %%
run = fit(
    load_config(
        ["forecasting/table"],
        [
            "data.path=sales.csv",
            "data.id=store",
            "data.target=[sales]",
            "data.known=[promo]",
            "run.dir=sales",
            "trainer.max_epochs=6",
            *QUIET,
            *SHORT,
        ],
    )
)

# %% [markdown]
# ## Forecast of the next two weeks, and a backtest

# %%
best = run.folder / "checkpoints" / "best.ckpt"
ahead = forecast(
    best,
    "forecast.csv",
    data=Path("sales.csv"),
    future=Path("plans.csv"),
    plot=Path("forecast.png"),
)
ahead.select("series", "timestamp", "step", "forecast", "lower_80", "upper_80").head()

# %%
Image(filename="forecast.png")

# %%
print(backtest_text(backtest(best, "backtest.csv", data=Path("sales.csv"), windows=4, step=7)))

# %% [markdown]
# The data are simulated, so the true future is known and can be compared with the forecast.

# %%
joined = ahead.with_columns(pl.col("timestamp").cast(pl.Date).alias("date")).join(
    plans, left_on=["series", "date"], right_on=["store", "date"]
)
error = (joined["forecast"] - joined["sales"]).abs() / joined["sales"]
held = joined.select(((pl.col("sales") >= pl.col("lower_80")) & (pl.col("sales") <= pl.col("upper_80"))).mean()).item()
print(
    f"mean absolute percentage error {100 * error.mean():.1f} %; inside the 80 % intervals: {100 * (held or 0):.0f} %"
)

# %% [markdown]
# ## A FASTA file with labels in its headers
#
# Half of the sequences contain a motif, GTGACTCAT, on either strand.


# %%
def sequence(bound, length=60):
    """Return random bases, with the motif at a random place if `bound`."""
    bases = "".join(rng.choice(list("ACGT"), length))
    if not bound:
        return bases
    place = rng.integers(0, length - 9)
    return bases[:place] + ("GTGACTCAT" if rng.random() < 0.5 else "ATGAGTCAC") + bases[place + 9 :]


records = [(f"s{i}", i % 2, sequence(i % 2)) for i in range(200 if FAST else 4000)]
text = "".join(f">{name} label={('free', 'bound')[bound]}\n{bases}\n" for name, bound, bases in records)
Path("peaks.fa").write_text(text)
print(text[:300])

# %%
classifier = fit(
    load_config(
        ["genomics/motif"],
        [
            "data.name=peaks.fa",
            "run.dir=peaks",
            "experiment=peaks",
            "trainer.max_epochs=8",
            *QUIET,
            *SHORT,
        ],
    )
)

# %%
Image(filename=str(classifier.folder / "plots" / "classes.png"))

# %% [markdown]
# ## Predictions for new sequences, and per-base attribution

# %%
Path("new.fa").write_text(f">with_motif\n{'ACGGT' * 5}GTGACTCAT{'CCATG' * 5}\n>without\n{'ACGGTCCATG' * 6}\n")
best = classifier.folder / "checkpoints" / "best.ckpt"
predict(best, "new.csv", ["trainer.progress_bar=false"], source="new.fa")

# %%
mutagenesis(best, "new.fa", "mutations.csv", ["trainer.progress_bar=false"], record="with_motif")
Image(filename="mutations.png")
