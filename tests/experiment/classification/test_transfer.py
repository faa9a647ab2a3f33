"""Classifiers that start from a pre-trained checkpoint: loading, freezing, unfreezing and learning rate decay."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.experiment.dna import DDP, MOTIF, SMALL, weights
from tests.experiment.running import fit
from tests.helpers import TWO_STEPS, Refuse, run_cli
from titans_seq.config import load_config, to_container
from titans_seq.experiment.registry import build_experiment
from titans_seq.schema import ClassificationTaskOptions
from titans_seq.tasks import ClassificationTask
from titans_seq.tasks.finetuning import depth_of, learning_rate_scale, lowest_trained


def test_classifier_starts_from_pretrained_weights(forward: Path, tmp_path: Path) -> None:
    path = forward / "checkpoints" / "best.ckpt"
    overrides = [*SMALL, f"model.pretrained={path}", "task.learning_rate=0"]
    _, results, printed, _ = fit(MOTIF, tmp_path / "shared", *overrides)
    (note,) = [note for note in results["notes"] if "pre-trained" in note]
    assert note in printed
    assert note.endswith("stem, backbone, norm. Randomly initialised: head.weight, head.bias")
    learned, started = weights(forward), weights(tmp_path / "shared")
    assert f"{len(started) - 2} of {len(started)} parameters loaded" in note
    pairs = {name: name.replace("backbone.ahead.", "backbone.") for name in started if not name.startswith("head.")}
    assert set(pairs.values()) == {name for name in learned if not name.startswith("head.")}
    assert all(torch.equal(started[name], learned[source]) for name, source in pairs.items())
    # The weights of the forward direction are used for both.
    printed = fit(MOTIF, tmp_path / "separate", *overrides, "model.direction=both_separate").printed
    assert "the backward stack is a copy of the forward one" in printed
    separate = weights(tmp_path / "separate")
    name = "blocks.1.memory.qkv.weight"
    assert torch.equal(separate[f"backbone.ahead.{name}"], learned[f"backbone.{name}"])
    assert torch.equal(separate[f"backbone.back.{name}"], learned[f"backbone.{name}"])
    # A run's folder stands for its best checkpoint, on the command line and in a configuration of the library.
    finished = fit(MOTIF, tmp_path / "folder", *SMALL, f"model.pretrained={forward.parent / 'last'}")
    assert finished.results["pretrained"] == str(path)
    assert f"pre-trained weights of {path} (pretraining): " in finished.printed
    config = load_config([MOTIF], [*SMALL, f"model.pretrained={forward}"])
    _, note = build_experiment(config).new_task()
    assert note.startswith(f"pre-trained weights of {path} (pretraining): ")
    # The pre-trained checkpoint is no longer needed.
    checkpoint = tmp_path / "shared" / "checkpoints" / "best.ckpt"
    gone = f"model.pretrained={tmp_path / 'gone.ckpt'}"
    assert run_cli("test", checkpoint, gone, "trainer.limit_batches=1").status == 0


def test_incompatible_weights_are_errors(forward: Path, refuse: Refuse, tmp_path: Path) -> None:
    path = forward / "checkpoints" / "best.ckpt"
    start = [MOTIF, *SMALL, *TWO_STEPS, f"model.pretrained={path}"]
    cases = {
        "model.dim=16": "stem.embed.weight is (7, 8) in the checkpoint, (7, 16) in the configured model",
        "model.stem_width=7": "stem.conv.weight is (8, 8, 5) in the checkpoint, (8, 8, 7) in the configured model",
        "model.num_layers=3": "is missing in the checkpoint, (",
        "model.num_layers=1": "in the checkpoint, missing in the configured model",
        "model.stride=1": "trained with model.stride=2; the classifier has 1",
        "model.variant=cnn": "trained with model.variant=lmm; the classifier has cnn",
        "model.memory.chunk_size=8": "trained with model.memory.chunk_size=16; the classifier has 8",
        "model.memory.bound_lr=false": "trained with model.memory.bound_lr=True; the classifier has False",
        "model.memory.residual=true model.memory.bound_lr=false": "residual=False; the classifier has True",
        "model.memory.momentum=false": "trained with model.memory.momentum=True; the classifier has False",
        "model.memory.forgetting=false": "trained with model.memory.forgetting=True; the classifier has False",
    }
    for override, part in cases.items():
        line = refuse("fit", *start, *override.split())
        assert part in line
        assert f"model.pretrained={path}" in line
    line = refuse("fit", *start, "model.pretrained=nowhere.ckpt")
    assert "model.pretrained: nowhere.ckpt: no such checkpoint file" in line
    from tests.experiment.run.test_checkpoints import save_checkpoint

    other = save_checkpoint(tmp_path / "other.ckpt")
    line = refuse("fit", *start, f"model.pretrained={other}")
    assert "checkpoint of task.name=forecasting; expected pretraining or classification" in line


def test_mixers_of_other_options_are_errors(tmp_path: Path, refuse: Refuse) -> None:
    """What changes the result is compared; of a chunk size this is true for test-time training only."""
    chunks = "model.mixer.chunk_size=8"
    for variant, different in (("gla", "model.mixer.num_heads=1"), ("ttt_linear", chunks)):
        overrides = [*SMALL, f"model.variant={variant}", "model.mixer.num_heads=2"]
        path = fit(MOTIF, tmp_path / variant, *overrides).checkpoint
        line = refuse("fit", MOTIF, *TWO_STEPS, *overrides, different, f"model.pretrained={path}")
        key, _, value = different.partition("=")
        assert f"trained with {key}=" in line
        assert f"the classifier has {value}" in line
        if variant == "gla":
            fit(MOTIF, tmp_path / "again", *overrides, chunks, f"model.pretrained={path}")


HEAD = ("head.", "norm.")


def changed(folder: Path, epoch: str, before: dict[str, Tensor]) -> set[str]:
    after = weights(folder, epoch)
    return {name for name in after if not torch.equal(after[name], before[name])}


def test_linear_probe_trains_the_head_only(tmp_path: Path) -> None:
    overrides = [*SMALL, "model.dropout=0.5"]
    fit(MOTIF, tmp_path / "start", *overrides, "task.learning_rate=0")
    before = weights(tmp_path / "start")
    fit(MOTIF, tmp_path / "probe", *overrides, "task.unfreeze=head", "task.weight_decay=0.5")
    assert changed(tmp_path / "probe", "last", before) == {name for name in before if name.startswith(HEAD)}
    fit(MOTIF, tmp_path / "frozen", *overrides, "task.frozen_blocks=1")
    kept = ("stem.", "backbone.ahead.blocks.0.")
    assert changed(tmp_path / "frozen", "last", before) == {name for name in before if not name.startswith(kept)}


def test_frozen_modules_use_no_dropout(tmp_path: Path) -> None:
    task = ClassificationTask(to_container(load_config([MOTIF], [*SMALL, "task.unfreeze=head"])), ["a", "b"], [1, 1])
    task.trainer = type("Trainer", (), {"current_epoch": 0})()  # type: ignore[assignment]
    task.train().on_train_epoch_start()
    modes = {name: module.training for name, module in task.model.named_modules() if name}
    assert not any(training for name, training in modes.items() if ".blocks." in name and not name.endswith("blocks"))
    assert not modes["stem"]
    assert modes["dropout"], "the dropout of the head must be active"


def test_blocks_are_unfrozen_from_the_head_down(tmp_path: Path) -> None:
    options = ClassificationTaskOptions(unfreeze="gradual", unfreeze_every=2)
    # Depths: 3 is the head, 2 and 1 are the blocks, 0 is the stem.
    assert [lowest_trained(options, 2, epoch) for epoch in range(8)] == [3, 3, 2, 2, 1, 1, 0, 0]
    options.frozen_blocks = 1
    assert [lowest_trained(options, 2, epoch) for epoch in range(8)] == [3, 3, 2, 2, 2, 2, 2, 2]
    options = ClassificationTaskOptions(frozen_blocks=2)
    assert lowest_trained(options, 2, 0) == 3
    assert lowest_trained(ClassificationTaskOptions(), 2, 0) == 0


def test_lower_layers_have_lower_learning_rates() -> None:
    overrides = [*SMALL, "task.layer_decay=0.5", "task.learning_rate=0.08", "model.direction=both_separate"]
    task = ClassificationTask(to_container(load_config([MOTIF], overrides)), ["a", "b"], [1, 1])
    task.trainer = type("Trainer", (), {"max_epochs": 1, "max_steps": -1})()  # type: ignore[assignment]
    optimizer = task.configure_optimizers()["optimizer"]
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    stacks = {f"backbone.{side}.blocks.{i}.": rate for side in ("ahead", "back") for i, rate in ((1, 0.04), (0, 0.02))}
    expected = {"head.": 0.08, "norm.": 0.08, "stem.": 0.01, **stacks}
    seen = set()
    for name, parameter in task.model.named_parameters():
        (part,) = [part for part in expected if name.startswith(part)]
        assert rates[id(parameter)] == pytest.approx(expected[part]), name
        seen.add(part)
    assert seen == set(expected)
    assert learning_rate_scale("stem.embed.weight", ClassificationTaskOptions(), 2) == 1
    assert [depth_of(n, 3) for n in ("stem.conv.bias", "backbone.back.blocks.2.norm.weight", "head.bias")] == [0, 3, 4]


def test_incompatible_finetuning_keys(refuse: Refuse) -> None:
    cases = {
        "task.frozen_blocks=3": "3 exceeds model.num_layers=2",
        "task.unfreeze=gradual trainer.devices=2": DDP,
        "task.unfreeze=head task.frozen_blocks=1": "has no effect with task.unfreeze=head; remove one of them",
        "task.unfreeze=head task.layer_decay=0.8": "trains the head alone; remove one of them",
        "task.layer_decay=0": "use task.unfreeze=head for that",
    }
    for overrides, part in cases.items():
        assert part in refuse("fit", MOTIF, *overrides.split())
