"""Trainer callbacks: exact checkpoints, detection of NaN losses, logging, and lines of progress."""

from titans_seq.callbacks.checkpoints import Schedule, TrainingCheckpoints, VerifiedCheckpointIO
from titans_seq.callbacks.epoch_lines import EpochLines
from titans_seq.callbacks.nan_guard import NaNGuard
from titans_seq.callbacks.step_log import MACHINE, MemoryLog, StepLog, ValidateLastStep
from titans_seq.callbacks.time_limit import TimeLimit

__all__ = [
    "MACHINE",
    "EpochLines",
    "MemoryLog",
    "NaNGuard",
    "Schedule",
    "StepLog",
    "TimeLimit",
    "TrainingCheckpoints",
    "ValidateLastStep",
    "VerifiedCheckpointIO",
]
