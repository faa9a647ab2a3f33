"""Export a checkpoint's model to a folder or to a `torch.export` program."""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from titans_seq.batch import BASES
from titans_seq.errors import InputError
from titans_seq.experiment.registry import build_experiment
from titans_seq.experiment.run.checkpoint import load
from titans_seq.experiment.run.output import check_writable
from titans_seq.models.universal.windows import WindowForecaster
from titans_seq.nn import NeuralMemory
from titans_seq.schema import ClassificationConfig, Config, ForecastingConfig, PretrainingConfig, UniversalConfig
from titans_seq.system.files import replacing
from titans_seq.tasks.base import Task
from titans_seq.tasks.pretrained import save_pretrained

PROGRAM = ".pt2"
_VARIANTS = ("lmm", "mal", "transformer")  # their blocks contain no loop over segments
_TOLERANCE = 1e-5  # largest difference between program and model, relative to the largest output


def export(checkpoint: str | Path, out: str | Path, overrides: Iterable[str] = (), *, half: bool = False) -> str:
    """Write `out`: a folder for `from_pretrained`, or with the suffix .pt2 a program for `torch.export.load`.

    A program takes batches of any size: a forecaster context (B, L, C), z-scored, to (B, H, C); a classifier tokens
    (B, T) without padding to scores (B, K), T = data.max_length. Before it is written, it is compared with the model
    on batches of other sizes. With `half`, a folder's weights are stored in float16. Returns a description of what was
    written.
    """
    out = Path(out)
    if half and out.suffix == PROGRAM:
        raise InputError(f"--half: applies to a folder; a {PROGRAM} program stores float32")
    experiment, task, _ = load(checkpoint, overrides, build_experiment)
    if out.suffix != PROGRAM:
        return f"{save_pretrained(task, out, half=half)}: config.json, model.safetensors"
    check_writable(out)
    program, difference = export_program(task, experiment.config)
    with replacing(out) as partial, partial.open("wb") as file:
        torch.export.save(program, file)
    return f"{out}: differs from the model by at most {difference:.1e}"


def export_program(task: Task, config: Config) -> tuple[torch.export.ExportedProgram, float]:
    """Return the program of a task's model, and its largest relative difference from the model.

    Raises InputError for a model that is not supported, and when the difference is too large.
    """
    if isinstance(config, PretrainingConfig | UniversalConfig):
        raise InputError(f"export: {PROGRAM} supports forecasters and classifiers only; set --out to a folder")
    if isinstance(task.model, WindowForecaster):
        raise InputError(f"export: {PROGRAM} does not support a fine-tuned universal forecaster; set --out to a folder")
    if config.model.variant not in _VARIANTS:
        supported = f"a {PROGRAM} program requires one of {', '.join(_VARIANTS)}"
        raise InputError(f"export: model.variant={config.model.variant}: {supported}; or set --out to a folder")
    # Without gradients a program also runs outside no_grad.
    model = copy.deepcopy(task.model).cpu().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, NeuralMemory):
            module.backend = "chunked"  # torch's own operators: the program needs no other package
    if isinstance(config, ClassificationConfig) and config.data.max_length is None:
        raise InputError(f"export: a {PROGRAM} program has a fixed sequence length; set data.max_length")
    shapes = tuple({0: Dim.DYNAMIC} for _ in inputs_of(task, config, 2))
    with torch.no_grad():
        program = torch.export.export(model, inputs_of(task, config, 2), dynamic_shapes=shapes, strict=False)
        difference = max(_difference(program.module(), model, inputs_of(task, config, size)) for size in (1, 3, 8))
    if not difference <= _TOLERANCE:
        raise InputError(f"export: the program differs from the model by {difference:.1e}; it was not written")
    return program, difference


def inputs_of(task: Task, config: Config, size: int) -> tuple[Tensor, ...]:
    """Return random model inputs of a batch of `size`."""
    source = torch.Generator().manual_seed(size)
    if isinstance(config, ForecastingConfig):
        channels = int(task.hparams["num_channels"])
        return (torch.randn(size, config.data.context_length, channels, generator=source),)
    assert isinstance(config, ClassificationConfig)
    assert config.data.max_length
    length = config.data.max_length
    return (torch.randint(0, len(BASES), (size, length), generator=source),)


def _difference(program: nn.Module, model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    expected, found = model(*inputs), program(*inputs)
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1))
