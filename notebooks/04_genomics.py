# %% [markdown]
# # Genomics: audit, train, look inside
#
# Core promoters with a TATA box against sequences without one (GUE, the benchmark of DNABERT-2): 70 bases each, a set
# small enough for one core and an evening's coffee. First what the labels give away, then a training, then what the
# model looks at.

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import polars as pl
import torch
from IPython.display import Image

from titans_seq.config import load_config
from titans_seq.experiment import fit, load_run, mutagenesis
from titans_seq.experiment.classification.audit import audit_text
from titans_seq.plots import Panel, plot_panels, plot_points
from titans_seq.system.console import quiet

quiet()
FAST = bool(os.environ.get("TITANS_SEQ_FAST"))  # set by the tests
CONFIGS = Path("../configs") if Path("../configs").is_dir() else Path("configs")
WORK = Path(mkdtemp())

# %% [markdown]
# ## Audit first
#
# How much of the test score can be had without reading DNA: by length, by composition, by having seen the row before?

# %%
config = load_config(
    [CONFIGS / "genomics/gue.yaml"],
    [
        "data.name=prom/prom_core_tata",
        "model.dim=64",
        "model.num_layers=1",
        "trainer.max_epochs=6",
        f"run.dir={WORK / 'run'}",
        "logging.wandb=off",
        f"logging.every_n_steps={1 if FAST else 10}",
        "trainer.progress_bar=false",
        *(["trainer.max_steps=4", "trainer.limit_batches=4"] if FAST else []),
    ],
)
print(audit_text(config))

# %% [markdown]
# The test split has 613 rows: an accuracy is known to two points, an MCC to nearly four. Differences below that are
# noise, whatever their decimals.
#
# ## Train
#
# A small LMM that reads both directions; validation chooses the epoch, both strands are averaged at test.

# %%
run = fit(config)

# %%
metrics = pl.read_csv(run.folder / "metrics.csv", infer_schema_length=None)


def curve(column):
    """Steps and values of a logged number."""
    rows = metrics.drop_nulls(column)
    return rows["step"].to_numpy(), rows[column].to_numpy()


plot_panels(
    WORK / "curves.png",
    [
        Panel("log loss", {"training": curve("train/loss"), "validation": curve("val/loss")}),
        Panel("validation MCC", {"MCC": curve("val/mcc")}),
    ],
    title="Training on prom_core_tata",
    xlabel="optimiser step",
)
Image(filename=str(WORK / "curves.png"))

# %%
Image(filename=str(run.folder / "plots" / "classes.png"))

# %% [markdown]
# ## What does it look at?
#
# Every single-base change of one real promoter of the test split, the one that the model is surest of. Red: the change
# makes it more of a promoter; blue: less. A TATA box stands some 30 bases before the start of transcription.

# %%
best = run.folder / "checkpoints" / "best.ckpt"
_, task, data = load_run(best)
task.eval()
features, probabilities, labels, rows = [], [], [], []
with torch.inference_mode():
    for batch in data.test_dataloader():
        features.append(task.model.features(batch.tokens, batch.mask))
        probabilities.append(task(batch.tokens, batch.mask).softmax(1)[:, 1])
        labels.append(batch.labels)
        rows.append(batch.rows)
        if FAST:
            break
features, probabilities, labels, rows = (torch.cat(x) for x in (features, probabilities, labels, rows))
surest = int(rows[torch.where(labels == 1, probabilities, 0).argmax()])
(bases,) = data.rows("test").sequences.take(np.array([surest])).texts()
(WORK / "promoter.fa").write_text(f">promoter\n{bases}\n")
table = mutagenesis(best, WORK / "promoter.fa", WORK / "mutations.csv", ["trainer.progress_bar=false"])
Image(filename=str(WORK / "mutations.png"))

# %% [markdown]
# ## How the classes lie
#
# The mean of the backbone's outputs over each test sequence, on their two main axes.

# %%
centred = features - features.mean(0)
_, spread, axes = torch.linalg.svd(centred, full_matrices=False)
places = (centred @ axes[:2].T).numpy()
share = (spread.square() / spread.square().sum())[:2].numpy()
plot_points(
    WORK / "embedding.png",
    {name: places[(labels == number).numpy()] for number, name in enumerate(("no promoter", "promoter"))},
    title="Test sequences as the model sees them",
    xlabel=f"first axis ({100 * share[0]:.0f} % of the variance)",
    ylabel=f"second axis ({100 * share[1]:.0f} %)",
)
Image(filename=str(WORK / "embedding.png"))
