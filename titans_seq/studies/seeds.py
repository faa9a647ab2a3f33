"""One run for each of several seeds."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from titans_seq.errors import InputError, Interrupted
from titans_seq.experiment.fit import fit
from titans_seq.experiment.run.resume import newest_seeds_folder
from titans_seq.experiment.run.trainer import is_first_process
from titans_seq.experiment.run.training import Run
from titans_seq.schema import Config, RunOptions
from titans_seq.studies.compare import summary
from titans_seq.system.run_folders import find_resumed


def fit_seeds(config: Config, data: Any = None) -> list[Run]:
    """Train one run for each of `seeds` in <folder>/seed-<seed>, and print means and standard deviations.

    With `resume`, finished runs are kept and the others resume: `auto` and `last` select the newest such folder of
    this configuration, or `run.dir`; the folder itself, or one of its runs, can be given too. For `data` see
    `titans_seq.experiment.fit`.
    """
    folder = _folder(config)
    runs = []
    for seed in config.seeds:
        resume = "auto" if config.resume else None
        one = replace(config, seed=seed, seeds=[], resume=resume, run=RunOptions(dir=str(folder / f"seed-{seed}")))
        try:
            runs.append(fit(one, data))
        except Interrupted as stop:
            rest = f"This is seed {seed} only; for all seeds, repeat the command with run.dir={folder} resume=auto"
            raise Interrupted(f"{stop}. {rest}", stop.status) from None
    if is_first_process():  # the other processes have no results
        print(f"\n{summary([run.results for run in runs])}\nRun folders: {folder}")
    return runs


def _folder(config: Config) -> Path:
    """Return the folder of the runs, existing or new."""
    new_folder = Path("runs") / config.experiment / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if config.resume in (None, "auto", "last"):
        folder = Path(config.run.dir).expanduser() if config.run.dir else None
        if folder is None and config.resume:
            folder = newest_seeds_folder(config)
        if config.resume == "last" and not (folder and any(folder.glob("seed-*/config.yaml"))):
            raise InputError(
                f"resume=last: no runs of seeds in {folder or new_folder.parent}; omit it, or use resume=auto"
            )
        return folder or new_folder
    run = find_resumed(config.resume)
    folder = run.parent if run.name.startswith("seed-") else run  # the newest run is one of the seeds
    if not any(folder.glob("seed-*/config.yaml")):
        raise InputError(f"resume={folder}: not a folder of seeds: it contains no seed-N/config.yaml")
    return folder
