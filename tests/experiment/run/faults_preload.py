"""Imports of the process from which the others are forked; nothing more, because no thread may run in it."""

import lightning.pytorch
import wandb

import titans_seq.cli
import titans_seq.experiment

__all__ = ["lightning", "titans_seq", "wandb"]
