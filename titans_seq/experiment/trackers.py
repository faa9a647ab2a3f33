"""The loggers of a run: always metrics.csv, and a W&B run that never asks and never stops a training."""

import os
import sys
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from titans_seq.config import to_container
from titans_seq.experiment.run_folder import RunFolder
from titans_seq.schema import Config


def build_loggers(config: Config, folder: RunFolder) -> list[Logger]:
    """metrics.csv in the run folder, and W&B unless `logging.wandb=off`."""
    loggers: list[Logger] = [CSVLogger(save_dir=folder.path, name="", version="")]
    mode = config.logging.wandb or _default_mode()
    if mode == "online" and not _has_key():
        _say("no W&B key found: logging offline (`wandb login` changes that, `wandb sync` uploads the run later)")
        mode = "offline"
    if mode != "off":
        try:
            loggers.append(_start_wandb(config, folder, mode))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong over there, the training goes on
            _say(f"W&B is off for this run: {_one_line(error)}")
    return loggers


def _start_wandb(config: Config, folder: RunFolder, mode: str) -> Logger:
    import wandb

    run = wandb.init(
        project=config.logging.project,
        name=f"{config.experiment}-seed{config.seed}",
        group=config.experiment,
        dir=folder.path,
        config=to_container(config),
        mode="online" if mode == "online" else "offline",
        settings=wandb.Settings(silent=True, console="off"),
    )
    return WandbLogger(experiment=run)


def finish_loggers(loggers: list[Logger]) -> None:
    """Close the W&B run; a failure there is said and forgotten."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            try:
                logger.experiment.finish()
            except Exception as error:  # noqa: BLE001 - as above
                _say(f"W&B could not finish the run: {_one_line(error)}")


def log_image(loggers: list[Logger], key: str, path: Any) -> None:
    """Send a picture to W&B, if it is on."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            try:
                logger.log_image(key, [str(path)])
            except Exception as error:  # noqa: BLE001 - as above
                _say(f"W&B did not take {key}: {_one_line(error)}")


def _default_mode() -> str:
    wanted = os.environ.get("WANDB_MODE", "online")
    return {"disabled": "off", "dryrun": "offline"}.get(wanted, wanted)


def _has_key() -> bool:
    import wandb

    # Looks at the environment, the settings and .netrc; neither asks nor calls the server.
    return bool(wandb.login(prompt=False, verify=False))


def _one_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _say(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)
