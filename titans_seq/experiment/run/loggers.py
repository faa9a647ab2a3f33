"""The loggers of a run: metrics.csv, and W&B without prompts, whose failures do not stop the training."""

import os
import secrets
import string
import sys
from pathlib import Path

from lightning.pytorch.loggers import Logger

from titans_seq.config import to_container
from titans_seq.experiment.run.folder import RunFolder
from titans_seq.experiment.run.metrics_csv import MetricsCsv
from titans_seq.experiment.run.wandb_logger import WandbRun, one_line
from titans_seq.schema import Config


def build_loggers(config: Config, folder: RunFolder, rows: int = 0) -> tuple[MetricsCsv, list[Logger]]:
    """Open metrics.csv in the run folder and, unless `logging.wandb=off`, W&B; `rows` existing rows are kept."""
    metrics = MetricsCsv(folder.path / "metrics.csv", rows)
    if metrics.missing:
        print_note(f"{metrics.path}: {metrics.missing} of the {rows} rows before the checkpoint are missing")
    mode = config.logging.wandb or _default_mode()
    if mode == "online" and not _has_key():
        how = "run `wandb login` to log online; `wandb sync` uploads the run later"
        print_note(f"no W&B key found: logging offline ({how})")
        mode = "offline"
    loggers: list[Logger] = [metrics]
    for each in {"online": ("online", "offline"), "off": ()}.get(mode, ("offline",)):
        try:
            loggers.append(_start_wandb(config, folder, each, metrics))
            break
        except Exception as error:  # noqa: BLE001 - no failure of W&B may stop the training
            what = "W&B could not start online, logging offline" if each == "online" else "W&B is off for this run"
            print_note(f"{what}: {one_line(error)}")
    return metrics, loggers


def _start_wandb(config: Config, folder: RunFolder, mode: str, metrics: MetricsCsv) -> Logger:
    import wandb

    identity = folder.path / "wandb" / "id"
    existing = identity.read_text().strip() if identity.is_file() else None
    name = existing or "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    if existing:
        _set_aside(folder.path / "wandb", name)
    run = wandb.init(
        project=config.logging.project,
        name=f"{config.experiment}-seed{config.seed}",
        group=config.experiment,
        dir=folder.path,
        id=name,
        resume="allow" if mode == "online" else None,
        config=to_container(config),
        mode="online" if mode == "online" else "offline",
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=_seconds("WANDB_INIT_TIMEOUT", 30),
            finish_timeout=_seconds("WANDB_FINISH_TIMEOUT", 60),
        ),
    )
    identity.parent.mkdir(exist_ok=True)
    identity.write_text(f"{name}\n")
    logger = WandbRun(run, rows=len(metrics.rows))
    logger.replay(metrics.rows)
    return logger


def _seconds(variable: str, default: float) -> float:
    """A time limit for W&B in seconds, from an environment variable."""
    return float(os.environ.get(variable, default))


def _set_aside(folder: Path, name: str) -> None:
    """Move earlier records of an offline run to `replaced`: its rows are logged again, but must be uploaded once."""
    replaced = folder / "replaced"
    for record in folder.glob(f"offline-run-*-{name}"):
        replaced.mkdir(exist_ok=True)
        record.rename(replaced / f"{record.name}-{len(list(replaced.iterdir()))}")


def finish_loggers(loggers: list[Logger], status: int = 0) -> None:
    """Close the W&B run; an exit status other than 0 marks it as failed."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.finish(status)


def wandb_run(loggers: list[Logger]) -> WandbRun | None:
    """The W&B run among the loggers; None without one."""
    return next((logger for logger in loggers if isinstance(logger, WandbRun)), None)


def _default_mode() -> str:
    mode = os.environ.get("WANDB_MODE", "online")
    return {"disabled": "off", "dryrun": "offline"}.get(mode, mode)


def _has_key() -> bool:
    import wandb

    # Reads the environment, the settings and .netrc; neither prompts nor calls the server.
    return bool(wandb.login(prompt=False, verify=False))


def print_note(message: str) -> None:
    """Print a message that is not an error to stderr."""
    print(f"note: {message}", file=sys.stderr)
