# %% [markdown]
# # Genomics: audit, training, attribution
#
# Core promoters with a TATA box against sequences without one (GUE, the benchmark of DNABERT-2): 70 bases each, small
# enough to train on one CPU core over a coffee break. The steps are an audit for label leakage and shortcut features, a
# training run, and an in-silico mutagenesis that shows which bases the model uses.

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
os.chdir(mkdtemp())  # all files of this notebook go there

# %% [markdown]
# ## Audit first
#
# What test score do shortcuts reach: sequence length, base composition, or rows duplicated from the training split?

# %%
config = load_config(
    ["genomics/gue"],
    [
        "data.name=prom/prom_core_tata",
        "model.dim=64",
        "model.num_layers=1",
        "trainer.max_epochs=6",
        "run.dir=run",
        "logging.wandb=off",
        f"logging.every_n_steps={1 if FAST else 10}",
        "trainer.progress_bar=false",
        *(["trainer.max_steps=4", "trainer.limit_batches=4"] if FAST else []),
    ],
)
print(audit_text(config))

# %% [markdown]
# The test split has 613 rows: the uncertainty is about two points for an accuracy and nearly four for an MCC. Smaller
# differences are noise.
#
# ## Train
#
# A small LMM that reads both directions. The epoch is selected on validation; test scores average both strands.

# %%
run = fit(config)

# %%
metrics = pl.read_csv(run.folder / "metrics.csv", infer_schema_length=None)


def curve(column):
    """Return the steps and values of a logged metric."""
    rows = metrics.drop_nulls(column)
    return rows["step"].to_numpy(), rows[column].to_numpy()


plot_panels(
    Path("curves.png"),
    [
        Panel("log loss", {"training": curve("train/loss"), "validation": curve("val/loss")}),
        Panel("validation MCC", {"MCC": curve("val/mcc")}, markers=True),
    ],
    title="Training on prom_core_tata",
    xlabel="optimiser step",
)
Image(filename="curves.png")

# %%
Image(filename=str(run.folder / "plots" / "classes.png"))

# %% [markdown]
# ## In-silico mutagenesis
#
# The effect of every single-nucleotide variant of one promoter of the test split, the one predicted with the highest
# probability. Red: the variant raises the promoter score; blue: it lowers the score. A TATA box lies about 30 bases
# upstream of the transcription start site.

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
Path("promoter.fa").write_text(f">promoter\n{bases}\n")
table = mutagenesis(best, "promoter.fa", "mutations.csv", ["trainer.progress_bar=false"])
Image(filename="mutations.png")

# %% [markdown]
# ## Embeddings of the test sequences
#
# The mean of the backbone's outputs over each test sequence, projected on the first two principal components.

# %%
centred = features - features.mean(0)
_, spread, axes = torch.linalg.svd(centred, full_matrices=False)
places = (centred @ axes[:2].T).numpy()
share = (spread.square() / spread.square().sum())[:2].numpy()
plot_points(
    Path("embedding.png"),
    {name: places[(labels == number).numpy()] for number, name in enumerate(("no promoter", "promoter"))},
    title="Test sequences as the model sees them",
    xlabel=f"first axis ({100 * share[0]:.0f} % of the variance)",
    ylabel=f"second axis ({100 * share[1]:.0f} %)",
)
Image(filename="embedding.png")
