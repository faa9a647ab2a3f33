"""Saving and loading of a trained task without pickle: a folder with config.json and model.safetensors."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import titans_seq
from titans_seq.config import from_container
from titans_seq.errors import InputError
from titans_seq.schema import ClassificationConfig, Config, ForecastingConfig, PretrainingConfig, UniversalConfig
from titans_seq.tasks.base import Task
from titans_seq.tasks.classification import ClassificationTask
from titans_seq.tasks.forecasting import ForecastingTask
from titans_seq.tasks.pretraining import PretrainingTask
from titans_seq.tasks.universal import UniversalTask

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHIPPED = Path(titans_seq.__file__).parent / "weights"  # folders of the weights that come with the package

_TASKS: dict[type[Config], type[Task]] = {
    ForecastingConfig: ForecastingTask,
    ClassificationConfig: ClassificationTask,
    PretrainingConfig: PretrainingTask,
    UniversalConfig: UniversalTask,
}


def save_pretrained(task: Task, folder: str | Path, *, half: bool = False) -> Path:
    """Save a task to a folder, which is created; return the folder. Existing files are replaced.

    With `half`, floating-point weights are stored in float16: half the size. They are loaded as float32.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    hyperparameters = deepcopy(dict(task.hparams))
    hyperparameters["config"]["run"]["dir"] = None  # says nothing about the weights, but names a folder of this machine
    content = {"titans_seq": titans_seq.__version__, "hyperparameters": hyperparameters}
    weights = {name: _stored(x, half) for name, x in task.model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
    return folder


def _stored(x: torch.Tensor, half: bool) -> torch.Tensor:
    kept = x.detach().cpu().contiguous()
    return kept.half() if half and kept.is_floating_point() else kept


def from_pretrained(folder: str | Path, device: str | torch.device = "cpu") -> Any:
    """Load a task saved by `save_pretrained`, in evaluation mode; its `model` is the plain torch module.

    Raises InputError when the files are missing, damaged or inconsistent with each other.
    """
    folder = Path(folder)
    try:
        hyperparameters = json.loads((folder / CONFIG).read_text())["hyperparameters"]
        config = from_container(hyperparameters["config"], source=str(folder / CONFIG))
        task = _TASKS[type(config)](**hyperparameters)
    except FileNotFoundError:
        raise InputError(f"{folder}: no {CONFIG}; expected a folder written by save_pretrained") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder / CONFIG}: expected a file written by save_pretrained: {error}") from None
    try:
        weights = load_file(folder / WEIGHTS)
        task.model.load_state_dict(weights)
    except FileNotFoundError:
        raise InputError(f"{folder}: no {WEIGHTS}; expected a folder written by save_pretrained") from None
    except (SafetensorError, OSError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(
            f"{folder / WEIGHTS}: damaged, or does not match {CONFIG}: {lines[min(1, len(lines) - 1)].strip()}"
        ) from None
    return task.to(device).eval()
