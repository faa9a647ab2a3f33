"""Checkpoints from which a training goes on as if it had never stopped."""

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
from torch import Tensor

from titans_seq.errors import Interrupted
from titans_seq.system.checkpoint_files import BEST, LAST, make_room_for_last, read_checkpoint, write_checkpoint
from titans_seq.system.signals import StopSignals
from titans_seq.tasks import Task

RESUME = "resume"  # the part of a checkpoint that says where a training stands; without it there are weights alone


@dataclass(frozen=True)
class Schedule:
    """When a checkpoint is written, besides at the end of every epoch, and how many are kept."""

    steps: int = 0  # after every so many optimiser steps; 0: never for that reason
    minutes: float = 0.0  # after so much time; 0: never for that reason
    keep: int = 2  # last.ckpt among them


class TrainingCheckpoints(Callback):
    """Writes last.ckpt between two steps, and takes a training up from there, bit for bit.

    What Lightning restores by itself is not exact: not the random numbers, not the place in the epoch, and its own
    progress counters lack what happens after its hooks for checkpoints (rows for the loggers, the end of the epoch).
    So checkpoints are written at a step's beginning, when all of the step before is done and logged, with the counters
    as they stand there. Gradients that are still being accumulated are never cut in two.

    It must be the first callback of the trainer.

    Args:
        folder: where last.ckpt and its predecessors are.
        schedule: see there.
        signals: looked at before every step.
        rows: number of rows logged so far, after making sure that they are on the disk.
        facts: plain values for the checkpoint's readers: version, data.
        seconds: that the training took before it was stopped.
    """

    def __init__(
        self,
        folder: Path,
        schedule: Schedule,
        signals: StopSignals,
        rows: Callable[[], int],
        facts: dict[str, Any],
        seconds: float = 0.0,
    ) -> None:
        self.folder = folder
        self.schedule = schedule
        self.signals = signals
        self.rows = rows
        self.facts = facts
        self._seconds = seconds
        self._began: float | None = None
        self._standing: tuple[int, int] | None = None  # epoch and batches of it, while last.ckpt is being written
        self._processes: list[dict[str, dict[str, Tensor]]] = []  # what each of them alone holds, by rank
        self._resumed: dict[str, Any] | None = None
        self._saved_step = 0
        self._saved_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """That the training has taken so far, in all processes that carried it on."""
        return self._seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the loader, the random numbers and the counters where the checkpoint left them."""
        if trainer.world_size > 1:  # the first process knows the run's folder
            self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        self.signals.install()  # Lightning has put its own in their place
        self.signals.deferring = True
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._began = self._saved_at
        if self._resumed is None:
            return
        standing, self._resumed = self._resumed, None
        if standing["batches"]:
            loader = trainer.train_dataloader
            assert loader is not None
            loader.load_state_dict({"epoch": standing["epoch"], "batches": standing["batches"]})
        else:
            trainer.fit_loop.restarting = False  # an epoch begins, as any other does
        trainer.should_stop = standing["should_stop"]
        if len(standing["processes"]) == trainer.world_size:  # else it goes on, though not exactly
            here = standing["processes"][trainer.global_rank]
            cast(Task, pl_module).set_process_state(here["task"])
            _set_random_states(here["random"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end of the epoch before is a good place."""
        if trainer.current_epoch > 0 and trainer.global_step > self._saved_step:
            self._save(trainer, trainer.current_epoch, 0)
            self._stop_if_asked(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Writes a checkpoint when it is due or when a signal came, and then stops."""
        accumulating = batch_idx % trainer.accumulate_grad_batches
        if batch_idx == 0 or accumulating:
            return
        asked = _on_any(trainer, self.signals.received is not None)
        if asked or _on_any(trainer, self._is_due(trainer)):
            if trainer.global_step > self._saved_step:
                self._save(trainer, trainer.current_epoch, batch_idx)
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end of the last epoch."""
        if trainer.global_step > self._saved_step:
            self._save(trainer, trainer.current_epoch, 0)
        self._seconds, self._began = self.seconds, None
        self._stop_if_asked(trainer)
        self.signals.deferring = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """From here on a signal ends the program at once."""
        self.signals.deferring = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the facts to every checkpoint, and to last.ckpt all that is needed to go on."""
        checkpoint["titans_seq"] = self.facts
        if self._standing is None:
            return
        epoch, batches = self._standing
        checkpoint["epoch"] = epoch if batches else epoch - 1  # the one that the weights have last seen
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
        """Remembers where the training stood; the folder may have moved since."""
        self._resumed = checkpoint[RESUME]
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if state is not None and isinstance(callback, ModelCheckpoint):
                callback.current_score = state["current_score"]  # which it keeps, but does not take back
                best = str(self.folder.resolve() / BEST)
                score = state["best_model_score"]
                moved = {"dirpath": str(self.folder.resolve()), "best_model_path": best, "kth_best_model_path": best}
                state.update(moved if score is not None else {"dirpath": str(self.folder.resolve())})
                state["best_k_models"] = {} if score is None else {best: score}

    def _is_due(self, trainer: Trainer) -> bool:
        steps, minutes = self.schedule.steps, self.schedule.minutes
        by_steps = steps and trainer.global_step // steps > self._saved_step // steps
        return bool(by_steps or (minutes and time.monotonic() - self._saved_at > 60 * minutes))

    def _save(self, trainer: Trainer, epoch: int, batches: int) -> None:
        if trainer.is_global_zero:
            make_room_for_last(self.folder, self.schedule.keep)
        self._standing = epoch, batches
        # Gathered here: every process takes part in a checkpoint, but the hook runs on some strategies' first alone.
        here = {"random": _random_state(), "task": cast(Task, trainer.lightning_module).process_state()}
        self._processes = _of_all_processes(trainer, here)
        try:
            trainer.save_checkpoint(self.folder / LAST)
        finally:
            self._standing = None
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if _on_any(trainer, self.signals.received is not None):
            where = f"step {trainer.global_step}, epoch {trainer.current_epoch + 1}"
            raise Interrupted(f"stopped after {where}", status=self.signals.status())


def _set_counters(fit_loop: dict[str, Any], epoch: int, batches: int) -> None:
    """Lightning's progress as it is between two steps, or between two epochs (`batches` 0)."""
    begun = epoch + 1 if batches else epoch
    for kind in ("total", "current"):
        fit_loop["epoch_progress"][kind].update(ready=begun, started=begun, processed=epoch, completed=epoch)
        counted = fit_loop["epoch_loop.batch_progress"][kind]
        counted["ready"] = counted["started"] = counted["processed"] = counted["completed"]
    fit_loop["epoch_loop.batch_progress"]["is_last_batch"] = False


def _on_any(trainer: Trainer, here: bool) -> bool:
    """Whether it is so in any of the processes; all must ask."""
    return trainer.strategy.reduce_boolean_decision(here, all=False) if trainer.world_size > 1 else here


def _of_all_processes(trainer: Trainer, here: Any) -> list[Any]:
    """What each process gives, in the order of their ranks; all must ask."""
    if trainer.world_size == 1:
        return [here]
    everywhere = [None] * trainer.world_size
    torch.distributed.all_gather_object(everywhere, here)
    return everywhere


def _random_state() -> dict[str, Tensor]:
    """Of Python, numpy and torch, as tensors: checkpoints hold nothing that has to be unpickled."""
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
    """Checkpoints that are synced and renamed when written, and verified when read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """See `write_checkpoint`; raises OSError."""
        assert storage_options is None
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `read_checkpoint`; Lightning moves what it takes to its device."""
        return read_checkpoint(Path(path))
