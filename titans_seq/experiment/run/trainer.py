"""Build Lightning's trainer from a configuration, and check that this machine supports the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_only

from titans_seq.callbacks import VerifiedCheckpointIO
from titans_seq.errors import InputError
from titans_seq.ops.memory.arguments import Options
from titans_seq.ops.memory.backends import why_not_options, why_not_triton_here
from titans_seq.schema import Config, TrainerOptions
from titans_seq.system.console import can_redraw

ONE_DEVICE: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto"}


def build_trainer(
    config: Config,
    folder: Path | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Trainer:
    """Build Lightning's trainer for a configuration, with further arguments; without a folder it writes nothing."""
    options = config.trainer
    limit = options.limit_batches or None
    quiet = {"num_sanity_val_steps": 0, "enable_model_summary": False}
    return Trainer(
        default_root_dir=folder,
        logger=list(loggers),
        callbacks=list(callbacks),
        max_epochs=options.max_epochs,
        max_steps=options.max_steps,
        accumulate_grad_batches=options.accumulate_batches,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        plugins=list(_plugins(options)),
        use_distributed_sampler=False,  # the project's loaders shard the data themselves
        precision=options.precision,
        gradient_clip_val=options.gradient_clip or None,
        log_every_n_steps=config.logging.every_n_steps,
        limit_train_batches=train_batches(options) or None,
        limit_val_batches=limit,
        limit_test_batches=limit,
        limit_predict_batches=limit,
        enable_checkpointing=folder is not None,
        enable_progress_bar=options.progress_bar and can_redraw(),
        **{**quiet, **(arguments or {})},
    )


def train_batches(options: TrainerOptions) -> int:
    """Return the limit on the number of batches in a training epoch; 0 is no limit."""
    return min((limit for limit in (options.limit_batches, options.epoch_batches) if limit), default=0)


def is_first_process() -> bool:
    """Whether this is the first process of a distributed training, the only one that writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def on_one_device(config: Config, trainer: Trainer, loggers: Sequence[Logger]) -> Trainer:
    """Return a trainer for the test on one device, so that every sample counts exactly once."""
    if trainer.world_size == 1:
        return trainer
    tester = build_trainer(replace(config, trainer=replace(config.trainer, **ONE_DEVICE)), loggers=loggers)
    # The test is logged at the step at which training ended.
    tester.fit_loop.epoch_loop._batches_that_stepped = trainer.fit_loop.epoch_loop._batches_that_stepped
    return tester


def _plugins(options: TrainerOptions) -> list[VerifiedCheckpointIO]:
    """Checkpoint plugins; strategies that shard a checkpoint over devices write it themselves."""
    return [] if options.strategy.startswith(("fsdp", "deepspeed")) else [VerifiedCheckpointIO()]


def check_machine(config: Config) -> None:
    """Raise InputError when this machine or this version does not support the configuration."""
    options, memory = config.trainer, config.model.memory
    cuda = torch.cuda.is_available()
    accelerators = ["cpu", *(["gpu", "cuda"] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    if options.accelerator not in ("auto", *accelerators):
        raise InputError(
            f"trainer.accelerator={options.accelerator}: not available on this machine; available: auto, "
            f"{', '.join(accelerators)}"
        )
    on_cuda = cuda and options.accelerator != "cpu"
    if on_cuda and options.devices > torch.cuda.device_count():
        raise InputError(
            f"trainer.devices={options.devices}: exceeds the {torch.cuda.device_count()} devices of this machine"
        )
    if options.strategy.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):
        raise InputError(
            f"trainer.strategy={options.strategy}: not supported: its processes cannot return the run; use ddp"
        )
    if options.strategy.startswith("single_"):
        raise InputError(f"trainer.strategy={options.strategy}: not supported: one device needs no strategy; use auto")
    strategies = StrategyRegistry.available_strategies()
    if options.strategy != "auto" and options.strategy not in strategies:
        raise InputError(
            f"trainer.strategy={options.strategy}: unknown strategy; available: auto, {', '.join(strategies)}"
        )
    if options.strategy not in ("auto", "ddp"):
        _try_strategy(options)
    processes = options.devices * options.num_nodes
    if config.data.batch_size % processes:
        raise InputError(
            f"data.batch_size={config.data.batch_size}: must be a multiple of the number of devices, trainer.devices x "
            f"trainer.num_nodes = {processes}"
        )
    if options.precision == "16-mixed" and not on_cuda:
        raise InputError("trainer.precision=16-mixed: requires a GPU; available: 32-true, bf16-mixed")
    if options.precision == "bf16-mixed" and on_cuda and not torch.cuda.is_bf16_supported():
        raise InputError(
            "trainer.precision=bf16-mixed: this GPU does not support bfloat16; available: 32-true, 16-mixed"
        )
    if memory.backend == "triton":
        why_not = why_not_triton_here() if on_cuda else "needs a CUDA device"
        if why_not := why_not or _why_not_kernels(config):
            raise InputError(f"model.memory.backend=triton: {why_not}; available: auto, chunked, reference")


def _try_strategy(options: TrainerOptions) -> None:
    """Raise InputError with Lightning's reason when this machine does not support a strategy."""
    where = {"accelerator": options.accelerator, "devices": options.devices, "num_nodes": options.num_nodes}
    try:
        Trainer(strategy=options.strategy, **where, logger=False, enable_checkpointing=False)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - strategies raise exceptions of any type
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise InputError(f"trainer.strategy={options.strategy}: {reason or type(error).__name__}") from None


def _why_not_kernels(config: Config) -> str | None:
    """Why Triton's kernels cannot compute the configured memory; None if they can."""
    memory = config.model.memory
    head_dim = config.model.dim // memory.num_heads
    sizes = [head_dim, *[memory.expansion * head_dim] * (memory.depth - 1), head_dim]
    return why_not_options(sizes, memory.channel_forget, Options.from_fields(vars(memory)))
