"""A NaN loss or gradient ends training with a one-line error and keeps the weights of the step before."""

from pathlib import Path

import pytest
import torch

from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, refusal, run_cli

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
OVERRIDES = [
    *SMALL_MODEL,
    *TWO_STEPS,
    "model.linear_path=learned",
    "trainer.max_steps=-1",
    "trainer.limit_batches=4",
    "trainer.checkpoint_steps=1",
]


def poison(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Make the feed-forward layer of the only block return NaN from its `call`-th call in training on."""
    from titans_seq.nn.feedforward import FeedForward

    forward, calls = FeedForward.forward, 0

    def poisoned(self: FeedForward, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += self.training
        y = forward(self, x)
        return y * torch.nan if self.training and calls >= call else y

    monkeypatch.setattr(FeedForward, "forward", poisoned)


def test_error_names_step_batch_and_module_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 7)
    folder = tmp_path / "run"
    line = refusal(run_cli("fit", SYNTHETIC, *OVERRIDES, f"run.dir={folder}"))
    assert "step 7, batch 3 of epoch 2: the loss is nan, first in model.backbone.blocks.0.ffn" in line
    last = folder / "checkpoints" / "last.ckpt"
    assert line.endswith(f"Last good checkpoint: {last}")
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == 6
    assert all(x.isfinite().all() for x in content["state_dict"].values())
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize(("factor", "what"), [(torch.inf, "the gradient of"), (1e35, "the norm of the gradient of")])
def test_non_finite_gradient_is_detected_before_the_optimizer_step(
    factor: float, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from titans_seq.nn.feedforward import FeedForward

    forward, calls = FeedForward.forward, 0

    def poisoned(self: FeedForward, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += self.training
        y = forward(self, x)
        if self.training and calls >= 2 and y.requires_grad:
            y.register_hook(lambda gradient: gradient * factor)
        return y

    monkeypatch.setattr(FeedForward, "forward", poisoned)
    folder = tmp_path / "run"
    line = refusal(run_cli("fit", SYNTHETIC, *OVERRIDES, f"run.dir={folder}"))
    assert f"step 2, batch 2 of epoch 1: {what} model." in line
    assert "is not finite" in line
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(x.isfinite().all() for x in weights.values())


def test_error_names_the_bad_batch_among_accumulated_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 3)
    line = refusal(run_cli("fit", SYNTHETIC, *OVERRIDES, "trainer.accumulate_batches=2", f"run.dir={tmp_path / 'run'}"))
    assert "step 2, batch 3 of epoch 1: the loss is nan" in line


def test_diverging_learning_rate(tmp_path: Path) -> None:
    large_steps = ["task.learning_rate=1e30", "task.warmup_steps=0", f"run.dir={tmp_path / 'run'}"]
    line = refusal(run_cli("fit", SYNTHETIC, *OVERRIDES, *large_steps))
    assert "step 2, batch 2 of epoch 1: the loss is" in line
    assert "lower task.learning_rate" in line
