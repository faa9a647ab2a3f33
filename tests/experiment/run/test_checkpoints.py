"""Invalid checkpoints: one error line, and no code of the file is executed."""

from pathlib import Path

import pytest
import torch

from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, Refuse
from titans_seq.config import load_config, to_container

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"


def save_checkpoint(path: Path, *overrides: str) -> Path:
    """Save a checkpoint of the untrained small model for the built-in data with Lightning; return its path."""
    from lightning.pytorch import Trainer

    from titans_seq.tasks import ForecastingTask

    task = ForecastingTask(
        to_container(load_config([SYNTHETIC], [*SMALL_MODEL, *TWO_STEPS, *overrides])), num_channels=5
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_missing_checkpoint(refuse: Refuse, command: str) -> None:
    assert "nowhere.ckpt: no such checkpoint file" in refuse(command, "nowhere.ckpt")


def test_files_that_are_not_checkpoints(refuse: Refuse, tmp_path: Path) -> None:
    for content in (b"", b"hello", bytes(range(256)) * 10, SYNTHETIC.read_bytes()):
        path = tmp_path / "not.ckpt"
        path.write_bytes(content)
        assert f"{path}: cut short, damaged or not a checkpoint" in refuse("test", path)
    others: list[object] = [[1, 2], {"state_dict": {}}, {"state_dict": {}, "hyper_parameters": {"config": 3}}]
    for saved in others:
        torch.save(saved, path)
        assert f"{path}: not a checkpoint of titans_seq" in refuse("test", path)


def test_loading_a_checkpoint_executes_no_code(refuse: Refuse, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"state_dict": Touch()}, tmp_path / "evil.ckpt")
    assert "evil.ckpt" in refuse("test", tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint(refuse: Refuse, tmp_path: Path, kept: float) -> None:
    path = save_checkpoint(tmp_path / "whole.ckpt")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert f"{path}: cut short, damaged or not a checkpoint" in refuse("test", path)


def test_error_of_a_size_mismatch_shows_both_shapes(refuse: Refuse, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "small.ckpt")
    # The checkpoint has horizon 48; its head has 3 patches x dim 8 inputs.
    line = refuse("test", path, "data.horizon=24")
    assert str(path) in line
    assert "model.head.bias is (48,) in the checkpoint, (24,) in the configured model" in line


def test_error_of_a_checkpoint_without_a_configured_layer(refuse: Refuse, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "small.ckpt")
    assert "is missing in the checkpoint, (" in refuse("test", path, "model.num_layers=2")


def test_error_of_another_number_of_channels(refuse: Refuse, tmp_path: Path, data_root: Path) -> None:
    path = save_checkpoint(tmp_path / "small.ckpt")
    line = refuse("test", path, "data.name=ETTh1", f"data.root={data_root}")
    assert "trained on 5 channels; ETTh1 has 7" in line


def test_predictions_into_a_missing_folder(refuse: Refuse, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "small.ckpt")
    assert "no such folder" in refuse("predict", path, "--out", tmp_path / "nowhere" / "out.parquet")
