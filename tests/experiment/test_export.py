"""Export: safetensors folders and torch.export programs give the outputs of the model."""

import json
from pathlib import Path

import pytest
import torch

from tests.experiment.run.test_checkpoints import save_checkpoint
from tests.helpers import CONFIGS, SMALL_MODEL, Refuse
from titans_seq.config import load_config, to_container
from titans_seq.errors import InputError
from titans_seq.experiment.export import export, export_program, inputs_of
from titans_seq.schema import Config
from titans_seq.tasks import (
    ClassificationTask,
    ForecastingTask,
    PretrainingTask,
    Task,
    from_pretrained,
    save_pretrained,
)

SMALL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "model.attention.num_heads=2"]


def build(kind: str, variant: str) -> tuple[Task, Config]:
    """An untrained task and its configuration."""
    if kind == "forecasting":
        overrides = [
            *SMALL,
            f"model.variant={variant}",
            "data.context_length=480",
        ]  # twenty tokens: more than one chunk
        config = load_config([CONFIGS / "forecasting" / "synthetic.yaml"], overrides)
        return ForecastingTask(to_container(config), num_channels=3), config
    overrides = [*SMALL, f"model.variant={variant}", "data.max_length=50"]
    config = load_config([CONFIGS / "genomics" / "motif.yaml"], overrides)
    return ClassificationTask(to_container(config), ["no", "yes"], [3, 4]), config


@pytest.mark.parametrize("kind", ["forecasting", "classification"])
def test_folder_contains_weights_and_metadata(tmp_path: Path, kind: str) -> None:
    task, config = build(kind, "mal")
    save_pretrained(task, tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    loaded = from_pretrained(tmp_path / "model")
    assert not loaded.training
    task.eval()
    inputs = inputs_of(task, config, 3)
    with torch.no_grad():
        assert torch.equal(loaded.model(*inputs), task.model(*inputs))
    if kind == "classification":
        assert loaded.classes == ("no", "yes")


def test_pretraining_task_exports_to_a_folder_only(tmp_path: Path) -> None:
    config = load_config([CONFIGS / "genomics" / "pretrain.yaml"], SMALL)
    task = PretrainingTask(to_container(config))
    loaded = from_pretrained(save_pretrained(task, tmp_path / "model"))
    assert isinstance(loaded, PretrainingTask)
    for name, x in task.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], x)
    with pytest.raises(InputError, match="supports forecasters and classifiers only"):
        export_program(task, config)


def test_invalid_model_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        from_pretrained(tmp_path)
    task, _ = build("forecasting", "lmm")
    save_pretrained(task, tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(InputError, match=r"model.safetensors: damaged"):
        from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    content = json.loads((tmp_path / "config.json").read_text())
    content["hyperparameters"]["config"]["model"]["dim"] = 16
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"does not match config.json: size mismatch"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"config.json: expected a file written by save_pretrained"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("variant", ["lmm", "mal"])
@pytest.mark.parametrize("kind", ["forecasting", "classification"])
def test_program_equals_the_model_for_every_batch_size(tmp_path: Path, kind: str, variant: str) -> None:
    task, config = build(kind, variant)
    task.eval()
    program, difference = export_program(task, config)
    assert difference < 1e-5
    torch.export.save(program, tmp_path / "model.pt2")
    assert not [node for node in program.graph.nodes if "titans_seq" in str(node.target)]  # it needs torch alone
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for size in (1, 5):  # with gradients enabled
        inputs = inputs_of(task, config, size)
        torch.testing.assert_close(loaded(*inputs), task.model(*inputs).detach(), rtol=1e-5, atol=1e-6)


def test_export_of_a_checkpoint_to_a_folder(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "best.ckpt", *SMALL_MODEL)
    message = export(path, tmp_path / "model")
    assert message == f"{tmp_path / 'model'}: config.json, model.safetensors"
    weights = torch.load(path, weights_only=True)["state_dict"]
    for name, x in from_pretrained(tmp_path / "model").state_dict().items():
        assert torch.equal(x, weights[name])


def test_variant_without_program_export_is_an_error(refuse: Refuse, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "best.ckpt", "model.variant=mac", "model.attention.num_heads=2")
    assert "model.variant=mac: a .pt2 program requires one of lmm, mal" in refuse(
        "export", path, "--out", tmp_path / "model.pt2"
    )
