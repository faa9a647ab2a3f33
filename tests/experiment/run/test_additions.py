"""Callbacks, loggers and trainer arguments that a caller gives to `fit`, and the key trainer.profiler."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from tests.experiment.run.test_endings import SHORT, SYNTHETIC, Fault, Killed, process
from tests.experiment.run.test_resume import assert_same_run
from titans_seq.config import load_config
from titans_seq.errors import InputError
from titans_seq.experiment import fit
from titans_seq.schema import Config


class Counter(Callback):
    """Counts the steps of a run, also of one that was resumed."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def configured(folder: Path, *overrides: str) -> Config:
    return load_config([SYNTHETIC], [*SHORT, "trainer.max_epochs=2", *overrides, f"run.dir={folder}"])


def additions(folder: Path) -> dict[str, Any]:
    """A callback with a state, a second checkpoint callback and a logger."""
    lowest = ModelCheckpoint(folder / "own", filename="{step}", monitor="val/mae")
    return {"callbacks": [Counter(), lowest], "logger": CSVLogger(folder, name="csv", version="")}


def test_callbacks_and_a_logger_also_after_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = additions(tmp_path / "whole")
    with process(monkeypatch):
        fit(configured(tmp_path / "whole"), **added)
    assert added["callbacks"][0].steps == 8
    (own,) = (path.name for path in (tmp_path / "whole" / "own").iterdir())
    assert yaml.safe_load((tmp_path / "whole" / "csv" / "hparams.yaml").read_text())["model"]["dim"] == 8
    logged = (tmp_path / "whole" / "csv" / "metrics.csv").read_text()
    assert "train/loss" in logged
    assert "test/mse" in logged

    with process(monkeypatch, Fault(6)), pytest.raises(Killed):
        fit(configured(tmp_path / "run", "resume=auto"), **additions(tmp_path / "run"))
    added = additions(tmp_path / "run")
    with process(monkeypatch):
        fit(configured(tmp_path / "run", "resume=auto"), **added)
    assert added["callbacks"][0].steps == 8
    assert [path.name for path in (tmp_path / "run" / "own").iterdir()] == [own]
    assert Path(added["callbacks"][1].best_model_path) == tmp_path / "run" / "own" / own
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_trainer_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Look(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append((trainer.gradient_clip_algorithm, type(trainer.profiler).__name__))

    config = configured(tmp_path / "run", "trainer.max_steps=1", "trainer.profiler=simple")
    with process(monkeypatch):
        fit(config, callbacks=Look(), trainer_kwargs={"gradient_clip_algorithm": "value"})
    assert [(str(each.value), profiler) for each, profiler in seen] == [("value", "SimpleProfiler")]
    assert "run_training_batch" in (tmp_path / "run" / "fit-profile.txt").read_text()
    assert "[Strategy]SingleDeviceStrategy.test_step" in (tmp_path / "run" / "test-profile.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trainer_kwargs": {"max_epochs": 3}}, "trainer_kwargs: max_epochs: is set by the configuration; use trainer"),
        ({"trainer_kwargs": {"max_time": "1"}}, "use trainer.max_minutes"),
        ({"trainer_kwargs": {"logger": False}}, r"is an argument of fit itself: fit\(config, logger=...\)"),
        ({"trainer_kwargs": {"fast_dev_run": True}}, "fast_dev_run: not supported in a run, .* accepted: benchmark"),
        ({"trainer_kwargs": {"profiler": "simple"}}, "profiler: trainer.profiler=advanced is set as well"),
        ({"callbacks": "text"}, "callbacks: must be Lightning Callback objects; got a str"),
        ({"logger": True}, "logger: must be Lightning Logger objects; got a bool"),
    ],
)
def test_arguments_that_a_run_sets_itself_are_errors(tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(configured(tmp_path / "run", "trainer.profiler=advanced"), **arguments)
    assert not (tmp_path / "run").exists()
