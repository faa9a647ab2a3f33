"""One run for each of several seeds."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from titans_seq.experiment.compare import summary
from titans_seq.experiment.fit import Run, fit
from titans_seq.experiment.resume import newest_repeats
from titans_seq.schema import Config, RunOptions


def fit_seeds(config: Config) -> list[Run]:
    """Carry out `seeds`, one run for each in <folder>/seed-<seed>, and print means and spreads.

    With `resume`, runs that are finished are left as they are, and the others go on.
    """
    folder = Path(config.run.dir) if config.run.dir else None
    if folder is None and config.resume:
        folder = newest_repeats(config)
    folder = folder or Path("runs") / config.experiment / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    runs = []
    for seed in config.seeds:
        resume = "auto" if config.resume else None
        runs.append(
            fit(replace(config, seed=seed, seeds=[], resume=resume, run=RunOptions(dir=str(folder / f"seed-{seed}"))))
        )
    print(f"\n{summary([run.results for run in runs])}\nRun folders: {folder}")
    return runs
