"""Checkpoints from which training resumes exactly, as if it had not been interrupted."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.loop import _Loop
from torch import Tensor

from titans_seq.errors import Interrupted
from titans_seq.system.checkpoint_files import LAST, make_room_for_last, read_checkpoint, write_checkpoint
from titans_seq.system.run_folders import BEST
from titans_seq.system.signals import StopSignals
from titans_seq.tasks import Task

RESUME = "resume"  # checkpoint key of the training progress; a checkpoint without it has weights only


@dataclass(frozen=True)
class Schedule:
    """Schedule of checkpoints within an epoch (one is always written at its end), and how many are kept."""

    steps: int = 0  # write one after this many optimiser steps; 0: no limit by steps
    minutes: float = 0.0  # write one after this many minutes; 0: no limit by time
    keep: int = 2  # number of checkpoints kept, including last.ckpt


class TrainingCheckpoints(Callback):
    """Write last.ckpt between two steps, and resume training from it bit for bit.

    Lightning alone does not resume exactly: it restores neither the random state nor the position in the epoch, and its
    progress counters miss everything after its checkpoint hooks (logged rows, the end of the epoch). So checkpoints are
    written at the beginning of a step, when the previous step is finished and logged, with the counters of that moment.
    A checkpoint is never written between the batches of one gradient accumulation.

    It must be the first callback of the trainer.

    Args:
        folder: folder of last.ckpt and its predecessors.
        schedule: when to write checkpoints, and how many to keep.
        signals: stop signals, checked before every step.
        rows: returns the number of rows logged so far, after syncing them to disk.
        metadata: plain values stored in the checkpoint: version, data; `schedule_steps`, the length of the learning
            rate's schedule in optimiser steps, joins them.
        seconds: training time of earlier processes of this run.
    """

    def __init__(
        self,
        folder: Path,
        schedule: Schedule,
        signals: StopSignals,
        rows: Callable[[], int],
        metadata: dict[str, Any],
        seconds: float = 0.0,
    ) -> None:
        self.folder = folder
        self.schedule = schedule
        self.signals = signals
        self.rows = rows
        self.metadata = metadata
        self._seconds = seconds
        self._began: float | None = None
        self._progress: tuple[int, int] | None = None  # epoch and batches done in it, while last.ckpt is being written
        self._processes: list[dict[str, dict[str, Tensor]]] = []  # per-process random and task state, by rank
        self._resumed: dict[str, Any] | None = None
        self._saved_step = 0
        self._saved_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time of this run so far, in seconds, including the processes before it was resumed."""
        return self._seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the loader's position, the random state and the counters from the checkpoint."""
        self.metadata = {**self.metadata, "schedule_steps": int(trainer.estimated_stepping_batches)}
        if trainer.world_size > 1:  # only the first process knows the run's folder
            self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        self.signals.install()  # Lightning has replaced them with its own
        self.signals.deferring = True
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._began = self._saved_at
        if self._resumed is None:
            return
        progress, self._resumed = self._resumed, None
        loader = trainer.train_dataloader
        assert loader is not None
        loader.load_state_dict({"epoch": progress["epoch"], "batches": progress["batches"]})
        if not progress["batches"]:
            _begin_epoch(trainer)
        trainer.should_stop = progress["should_stop"]
        if (
            len(progress["processes"]) == trainer.world_size
        ):  # with another number of processes training resumes, but not bit for bit
            here = progress["processes"][trainer.global_rank]
            cast(Task, pl_module).set_process_state(here["task"])
            _set_random_states(here["random"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a checkpoint at the end of the previous epoch."""
        if trainer.current_epoch > 0 and trainer.global_step > self._saved_step:
            self._save(trainer, trainer.current_epoch, 0)
            self._stop_if_signalled(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write a checkpoint when one is due or a signal was received; stop after a signal."""
        accumulating = batch_idx % trainer.accumulate_grad_batches
        if batch_idx == 0 or accumulating:
            return
        stopping = _any_process(trainer, self.signals.received is not None)
        if stopping or _any_process(trainer, self._is_due(trainer)):
            if trainer.global_step > self._saved_step:
                self._save(trainer, trainer.current_epoch, batch_idx)
            self._stop_if_signalled(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final checkpoint and stop deferring signals."""
        if trainer.global_step > self._saved_step:
            self._save(trainer, trainer.current_epoch, 0)
        self._seconds, self._began = self.seconds, None
        self._stop_if_signalled(trainer)
        self.signals.deferring = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop deferring signals: from here on a signal ends the program at once."""
        self.signals.deferring = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the metadata to every checkpoint, and to last.ckpt everything needed to resume."""
        checkpoint["titans_seq"] = self.metadata
        if self._progress is None:
            return
        epoch, batches = self._progress
        checkpoint["epoch"] = epoch if batches else epoch - 1  # the epoch of the weights' last update
        _set_counters(checkpoint["loops"]["fit_loop"], epoch, batches)
        checkpoint[RESUME] = {
            "epoch": epoch,
            "batches": batches,
            "rows": self.rows(),
            "seconds": self.seconds,
            "should_stop": bool(trainer.should_stop),
            "processes": self._processes,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the training progress for `on_train_start`, and adapt paths to the folder, which may have been moved."""
        self._resumed = checkpoint[RESUME]
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if state is not None and isinstance(callback, ModelCheckpoint):
                callback.current_score = state["current_score"]  # Lightning saves it but does not restore it
                if self._is_best(callback):
                    _move(state, self.folder.resolve())

    def _is_best(self, callback: ModelCheckpoint) -> bool:
        """Whether a callback writes the run's best checkpoint; callers of `fit` may add others."""
        return callback.filename == Path(BEST).stem and Path(str(callback.dirpath)).resolve() == self.folder.resolve()

    def _is_due(self, trainer: Trainer) -> bool:
        steps, minutes = self.schedule.steps, self.schedule.minutes
        by_steps = steps and trainer.global_step // steps > self._saved_step // steps
        return bool(by_steps or (minutes and time.monotonic() - self._saved_at > 60 * minutes))

    def _save(self, trainer: Trainer, epoch: int, batches: int) -> None:
        if trainer.is_global_zero:
            make_room_for_last(self.folder, self.schedule.keep)
        self._progress = epoch, batches
        # Gathered here, where every process takes part: some strategies run the save hook in the first process only.
        here = {"random": _random_state(), "task": cast(Task, trainer.lightning_module).process_state()}
        self._processes = _gather(trainer, here)
        try:
            trainer.save_checkpoint(self.folder / LAST)
        finally:
            self._progress = None
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def _stop_if_signalled(self, trainer: Trainer) -> None:
        if _any_process(trainer, self.signals.received is not None):
            where = f"step {trainer.global_step}, epoch {trainer.current_epoch + 1}"
            raise Interrupted(f"stopped after {where}", status=self.signals.status())


def _move(state: dict[str, Any], folder: Path) -> None:
    """Adapt the state of the callback that writes the best checkpoint to the folder in which that is now."""
    best, score = str(folder / BEST), state["best_model_score"]
    state["dirpath"] = str(folder)
    if score is not None:
        state.update(best_model_path=best, kth_best_model_path=best)
    state["best_k_models"] = {} if score is None else {best: score}


def _begin_epoch(trainer: Trainer) -> None:
    """Let Lightning begin an epoch where it has just restored the end of one.

    The setter of `FitLoop.restarting` keeps True with max_steps, and Lightning would continue an epoch that is over.
    """
    _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]
    trainer.fit_loop.update_restart_stage()


def _set_counters(fit_loop: dict[str, Any], epoch: int, batches: int) -> None:
    """Set Lightning's progress counters to their values between two steps, or between two epochs (`batches` 0)."""
    epochs_started = epoch + 1 if batches else epoch
    for kind in ("total", "current"):
        fit_loop["epoch_progress"][kind].update(
            ready=epochs_started, started=epochs_started, processed=epoch, completed=epoch
        )
        counted = fit_loop["epoch_loop.batch_progress"][kind]
        counted["ready"] = counted["started"] = counted["processed"] = counted["completed"]
    fit_loop["epoch_loop.batch_progress"]["is_last_batch"] = False


def _any_process(trainer: Trainer, here: bool) -> bool:
    """Whether `here` is true in any process; must be called by all processes."""
    return trainer.strategy.reduce_boolean_decision(here, all=False) if trainer.world_size > 1 else here


def _gather(trainer: Trainer, here: Any) -> list[Any]:
    """Gather `here` of all processes, ordered by rank; must be called by all processes."""
    if trainer.world_size == 1:
        return [here]
    everywhere = [None] * trainer.world_size
    torch.distributed.all_gather_object(everywhere, here)
    return everywhere


def _random_state() -> dict[str, Tensor]:
    """Return the random state of Python, numpy and torch as tensors, so that no checkpoint needs unpickling."""
    version, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state()
    assert version == 3
    state = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([nan if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.append(keys, [place, has_gauss]).astype(np.int64)),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_states(state: dict[str, Tensor]) -> None:
    gauss = float(state["python_gauss"])
    random.setstate((3, tuple(state["python"].tolist()), None if isnan(gauss) else gauss))
    *keys, place, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), place, has_gauss, float(state["numpy_gauss"])))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Checkpoint plugin that syncs and renames files when writing, and verifies them when reading."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write with `write_checkpoint`; raises OSError."""
        assert storage_options is None
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read with `read_checkpoint`, onto the CPU; Lightning moves the tensors to its device."""
        return read_checkpoint(Path(path))
