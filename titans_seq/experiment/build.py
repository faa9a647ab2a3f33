"""From a configuration to the trainer that carries it out."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from titans_seq.errors import InputError
from titans_seq.schema import Config


def build_trainer(
    config: Config,
    folder: Path | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    batches_per_epoch: int | None = None,
) -> Trainer:
    """Lightning's trainer for a configuration; without a folder it writes nothing."""
    options = config.trainer
    limit = options.limit_batches or None
    # A run that ends within its first epoch is validated at its last step.
    ends_early = 0 < options.max_steps < (batches_per_epoch or 0)
    return Trainer(
        default_root_dir=folder,
        logger=list(loggers),
        callbacks=list(callbacks),
        max_epochs=options.max_epochs,
        max_steps=options.max_steps,
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        gradient_clip_val=options.gradient_clip or None,
        log_every_n_steps=config.logging.every_n_steps,
        limit_train_batches=limit,
        limit_val_batches=limit,
        limit_test_batches=limit,
        limit_predict_batches=limit,
        val_check_interval=options.max_steps if ends_early else 1.0,
        num_sanity_val_steps=0,
        enable_checkpointing=folder is not None,
        enable_progress_bar=options.progress_bar,
        enable_model_summary=False,
    )


def check_machine(config: Config) -> None:
    """Raise InputError when the configuration asks for what this machine or this version does not have."""
    options, memory = config.trainer, config.model.memory
    cuda = torch.cuda.is_available()
    accelerators = ["cpu", *(["gpu", "cuda"] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    if options.accelerator not in ("auto", *accelerators):
        raise InputError(
            f"trainer.accelerator={options.accelerator}: not on this machine; here: auto, {', '.join(accelerators)}"
        )
    on_cuda = cuda and options.accelerator != "cpu"
    if options.devices > 1:
        raise InputError(f"trainer.devices={options.devices}: several devices are not available in this version; use 1")
    if options.precision == "16-mixed" and not on_cuda:
        raise InputError("trainer.precision=16-mixed: needs a GPU; here: 32-true, bf16-mixed")
    if options.precision == "bf16-mixed" and on_cuda and not torch.cuda.is_bf16_supported():
        raise InputError("trainer.precision=bf16-mixed: this GPU has no bfloat16; here: 32-true, 16-mixed")
    if memory.backend == "triton":
        where = "not available in this version" if on_cuda else "needs a CUDA device"
        raise InputError(f"model.memory.backend=triton: {where}; here: auto, chunked, reference")
