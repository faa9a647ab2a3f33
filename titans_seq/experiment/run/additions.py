"""What a caller of `fit` adds to a run: callbacks, loggers, and arguments of Lightning's trainer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from titans_seq.errors import InputError
from titans_seq.schema import Config

# Arguments of Lightning's trainer that change neither what is trained nor when checkpoints are written.
TRAINER_ARGUMENTS = (
    "benchmark",
    "detect_anomaly",
    "deterministic",
    "enable_model_summary",
    "gradient_clip_algorithm",
    "inference_mode",
    "num_sanity_val_steps",
    "profiler",
)
_KEYS = {  # configuration keys of the arguments that a run sets itself
    "accelerator": "trainer.accelerator",
    "accumulate_grad_batches": "trainer.accumulate_batches",
    "devices": "trainer.devices",
    "enable_progress_bar": "trainer.progress_bar",
    "gradient_clip_val": "trainer.gradient_clip",
    "limit_test_batches": "trainer.limit_batches",
    "limit_train_batches": "trainer.limit_batches",
    "limit_val_batches": "trainer.limit_batches",
    "log_every_n_steps": "logging.every_n_steps",
    "max_epochs": "trainer.max_epochs",
    "max_steps": "trainer.max_steps",
    "max_time": "trainer.max_minutes",
    "num_nodes": "trainer.num_nodes",
    "precision": "trainer.precision",
    "strategy": "trainer.strategy",
    "default_root_dir": "run.dir",
}
_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


@dataclass(frozen=True)
class Additions:
    """Callbacks, loggers and trainer arguments besides those of the configuration."""

    callbacks: list[Callback] = field(default_factory=list)
    loggers: list[Logger] = field(default_factory=list)
    trainer: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def collect(
        cls,
        config: Config,
        callbacks: Callback | Iterable[Callback] | None,
        logger: Logger | Iterable[Logger] | None,
        trainer_kwargs: Mapping[str, Any] | None,
    ) -> "Additions":
        """Collect what `fit` was given; raises InputError for an argument that the configuration sets."""
        for name in trainer_kwargs or {}:
            if name not in TRAINER_ARGUMENTS:
                raise InputError(f"trainer_kwargs: {name}: {_advice(name)}")
        if "profiler" in (trainer_kwargs or {}) and config.trainer.profiler != "none":
            both = f"trainer.profiler={config.trainer.profiler} is set as well; remove one of them"
            raise InputError(f"trainer_kwargs: profiler: {both}")
        every = _listed(callbacks, Callback, "callbacks"), _listed(logger, Logger, "logger")
        return cls(*every, dict(trainer_kwargs or {}))

    def with_profiler(self, config: Config, folder: Path) -> dict[str, Any]:
        """The trainer arguments with the configured profiler, which writes into the run's folder."""
        kind = config.trainer.profiler
        if kind == "none":
            return self.trainer
        return {**self.trainer, "profiler": _PROFILERS[kind](dirpath=folder, filename="profile")}


def _advice(name: str) -> str:
    if name in ("callbacks", "logger"):
        return f"is an argument of fit itself: fit(config, {name}=...)"
    if name in _KEYS:
        return f"is set by the configuration; use {_KEYS[name]}"
    return f"not supported in a run, which sets it itself; accepted: {', '.join(TRAINER_ARGUMENTS)}"


def _listed(given: Any, kind: type, name: str) -> list[Any]:
    """Return one object or an iterable of them as a list; raises InputError for other types."""
    if given is None:
        return []
    every = [given] if isinstance(given, kind) else list(given) if isinstance(given, Iterable) else [given]
    for each in every:
        if not isinstance(each, kind):
            raise InputError(f"{name}: must be Lightning {kind.__name__} objects; got a {type(each).__name__}")
    return every
